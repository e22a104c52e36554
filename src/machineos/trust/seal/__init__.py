"""What the TPM gives out to whom: layout, provisioning, unsealing, the door."""
