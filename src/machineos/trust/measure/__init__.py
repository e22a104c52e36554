"""What the TPM will have measured: PCR prediction, Secure Boot lists, signed policies."""
