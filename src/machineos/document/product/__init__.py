"""``install.json``, the signed document: its types, its rules, its artifacts."""
