"""Keysets and their signers, certificates, signed EFI programs: what a maker of products holds."""
