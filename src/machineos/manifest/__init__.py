"""Manifests: what a developer writes, what is signed and published, what a machine runs."""
