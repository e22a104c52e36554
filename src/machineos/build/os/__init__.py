"""hostfs, initrd, kernel images and the bootkit."""
