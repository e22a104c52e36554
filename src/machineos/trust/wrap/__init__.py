"""Keys that follow from the storage volume key, and secrets wrapped for their machine."""
