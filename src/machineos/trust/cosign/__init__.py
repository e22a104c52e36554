"""Signatures of images as cosign makes and checks them, without any of its services."""
