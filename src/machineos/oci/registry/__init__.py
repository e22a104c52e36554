"""OCI registries, by HTTP: requests, authorization, uploads."""
