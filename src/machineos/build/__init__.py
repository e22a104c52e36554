"""Recipes and conversion, the parts of the OS, media, publishing: only on developers' machines."""
