"""Docker Hub, whose name is not that of its server; everybody else's is. Touches nothing.

What is ``alpine`` there to a person is ``library/alpine`` at another host, and ``docker login``
keeps the credentials under a third name. As skopeo and oras have it. The only names of a registry
in this project, since people write the first of them.
"""

from __future__ import annotations

NAMES = ("docker.io", "index.docker.io", "registry-1.docker.io")
SERVER = "registry-1.docker.io"
STORE_KEY = "https://index.docker.io/v1/"


def server(host: str) -> str:
    """Return where the registry ``host`` is."""
    return SERVER if host in NAMES else host


def names(host: str) -> tuple[str, ...]:
    """Return the names under which credentials for it may be kept, its own first."""
    return tuple(dict.fromkeys((host, *NAMES))) if host in NAMES else (host,)


def store_key(host: str) -> str:
    """Return what a credential helper knows it by."""
    return STORE_KEY if host in NAMES else host


def repository(host: str, name: str) -> str:
    """Return what its server calls the repository ``name``."""
    return f"library/{name}" if host in NAMES and "/" not in name else name
