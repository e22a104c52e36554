"""Test vectors, and the generators that make them."""
