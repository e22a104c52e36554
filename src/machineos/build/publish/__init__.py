"""manifest.yaml, as people write it, and its publication."""
