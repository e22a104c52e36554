"""OCI image layouts and registries: read, write, copy and verify by digest."""
