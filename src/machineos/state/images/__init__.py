"""Images in the store of the machine, mounted under dm-verity."""
