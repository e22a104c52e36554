"""Wrapping secrets to a public key, so that who wraps cannot unwrap."""
