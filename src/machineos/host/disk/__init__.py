"""Disks: block devices, partition tables, file systems, LUKS, LVM."""
