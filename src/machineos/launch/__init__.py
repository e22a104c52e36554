"""Launching: keys, media and a virtual machine brought together into an installed appliance."""
