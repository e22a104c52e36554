"""Tests that need this kernel: mounts, containers, packets. Seconds each, and root."""
