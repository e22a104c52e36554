"""Slots on the EFI partition: boot files, written once and really read back, and boot entries."""
