"""Provisioning and install media."""
