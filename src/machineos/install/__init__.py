"""Installing a machine: all is fetched and verified before anything on the disk is touched."""
