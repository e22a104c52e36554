"""machineOS: secure, container-only appliances from one manifest.yaml."""

__version__ = "0.1.0"
