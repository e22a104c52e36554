"""Docker Hub's names; nobody else's are changed."""

from __future__ import annotations

import pytest

from machineos.oci.registry import hub
from machineos.oci.registry.client import HttpRegistry
from machineos.oci.registry.transport import _same_origin


@pytest.mark.parametrize("host", hub.NAMES)
def test_docker_hub(host: str) -> None:
    assert hub.server(host) == hub.SERVER != hub.NAMES[0]
    assert hub.repository(host, "alpine") == "library/alpine"
    assert hub.repository(host, "someone/alpine") == "someone/alpine"
    assert hub.store_key(host) == hub.STORE_KEY
    with HttpRegistry(host) as registry:
        assert registry.name == host
        assert registry.repository("alpine").name == f"{host}/library/alpine"
        assert registry._transport.base == f"https://{hub.SERVER}"


@pytest.mark.parametrize(
    "host", ["r.example.com", f"{hub.NAMES[0]}:5000", f"{hub.NAMES[0]}.example.com"]
)
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
