"""Names of architectures. Follows the OCI image specification, which takes those of Go (GOARCH)."""

from __future__ import annotations

# How ``uname`` and some builders call what OCI has another word for.
_ALIASES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64"}


def architecture(name: str) -> str:
    """Return the OCI name of an architecture."""
    return _ALIASES.get(name.lower(), name)
