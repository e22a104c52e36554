"""Volumes: the configuration volume and those of services."""
