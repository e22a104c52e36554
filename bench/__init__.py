"""Measurements of the product against the tools that people would otherwise use."""
