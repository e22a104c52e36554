"""Docker Hub's names; nobody else's are changed."""

from __future__ import annotations

import pytest

from machineos.oci.registry import hub
from machineos.oci.registry.client import HttpRegistry
from machineos.oci.registry.transport import _same_origin


@pytest.mark.parametrize("host", ["docker.io", "index.docker.io", "registry-1.docker.io"])
def test_docker_hub(host: str) -> None:
    assert hub.server(host) == "registry-1.docker.io"
    assert hub.repository(host, "alpine") == "library/alpine"
    assert hub.repository(host, "someone/alpine") == "someone/alpine"
    assert hub.store_key(host) == "https://index.docker.io/v1/"
    with HttpRegistry(host) as registry:
        assert registry.name == host
        assert registry.repository("alpine").name == f"{host}/library/alpine"
        assert registry._transport.base == "https://registry-1.docker.io"


@pytest.mark.parametrize("host", ["r.example.com", "docker.io:5000", "docker.io.example.com"])
def test_anybody_else(host: str) -> None:
    assert (hub.server(host), hub.names(host), hub.store_key(host)) == (host, (host,), host)
    assert hub.repository(host, "alpine") == "alpine"


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("https://a/x", "https://a:443/y", True),
        ("http://a:80/x", "http://A/y", True),
        ("https://a/x", "https://a:444/x", False),
        ("https://a/x", "http://a/x", False),
        ("https://a:80/x", "http://a:80/x", False),
        ("https://a/x", "https://a.b/x", False),
        ("https://[::1]/x", "https://[::1]:443/x", True),
    ],
)
def test_origins(first: str, second: str, same: bool) -> None:
    assert _same_origin(first, second) is same
