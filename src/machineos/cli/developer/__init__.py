"""The commands of a developer's machine: trust, mosb, machine."""
