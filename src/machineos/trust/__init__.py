"""Keys, certificates and signatures: who may say what this machine runs."""
