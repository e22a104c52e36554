"""The kernel, by system call and ioctl: modules, mounts, device mapper, verity, loop devices, id
maps, keyrings, IPE. Shared with the initrd: standard library and core only.
"""
