"""The git store of ``/config``."""
