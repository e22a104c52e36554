"""OCI image layouts: folders."""
