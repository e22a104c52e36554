"""Recipes, and the conversion of any image to one layer under dm-verity."""
