"""Installing a machine: everything is fetched and verified before anything on the disk is touched."""
