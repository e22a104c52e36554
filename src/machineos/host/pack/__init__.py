"""What images and boot files are made with, on the machine of a developer: squashfs, EROFS, verity
trees, FAT and ISO images, shim, signatures, sandboxes. Never on an appliance."""
