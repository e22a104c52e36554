"""A TPM 2.0, spoken to directly (docs/adr/0004). Shared with the initrd."""
