"""Docker Hub, whose name is not that of its server; everybody else's is. Touches nothing.

What is ``docker.io/alpine`` to a person is ``library/alpine`` at ``registry-1.docker.io``, and
``docker login`` keeps its credentials under a third name. As skopeo and oras have it.
"""

from __future__ import annotations

_NAMES = ("docker.io", "index.docker.io", "registry-1.docker.io")
_SERVER = "registry-1.docker.io"
_STORE_KEY = "https://index.docker.io/v1/"


def server(host: str) -> str:
    """Return where the registry ``host`` is."""
    return _SERVER if host in _NAMES else host


def names(host: str) -> tuple[str, ...]:
    """Return the names under which credentials for it may be kept, its own first."""
    return tuple(dict.fromkeys((host, *_NAMES))) if host in _NAMES else (host,)


def store_key(host: str) -> str:
    """Return what a credential helper knows it by."""
    return _STORE_KEY if host in _NAMES else host


def repository(host: str, name: str) -> str:
    """Return what its server calls the repository ``name``."""
    return f"library/{name}" if host in _NAMES and "/" not in name else name
