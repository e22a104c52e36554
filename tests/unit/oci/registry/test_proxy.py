"""What the variables of proxies mean, and requests through real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fakes.proxy import FakeProxy, fake_proxy
from fakes.registry import PASSWORD, USER, FakeRegistry, fake_registry
from fakes.tls import throw_away_tls
from machineos.core.digest import Digest
from machineos.errors import AuthError, StalledError, TransferError, UsageError
from machineos.oci.model.documents import Descriptor
from machineos.oci.registry.auth import Credentials
from machineos.oci.registry.certificates import Certificates
from machineos.oci.registry.client import HttpRegistry
from machineos.oci.registry.proxy import DIRECT, Proxies, Proxy
from unit.oci.conftest import FAST, HASTY
from unit.oci.registry.test_access import auths
from unit.oci.samples import DATA, LAYER, NoWaiting, put_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AT = "http://proxy.example:3128"
EVERYTHING = {"http_proxy": AT, "https_proxy": AT}


@pytest.fixture
def proxy() -> Iterator[FakeProxy]:
    with fake_proxy() as server:
        yield server


# -- which variable, which proxy (values as golang.org/x/net/http/httpproxy has them)


@pytest.mark.parametrize(
    ("environ", "url", "proxy"),
    [
        ({}, "https://a.example/", None),
        ({"https_proxy": AT}, "https://a.example/", AT),
        ({"https_proxy": AT}, "http://a.example/", None),
        ({"http_proxy": AT}, "http://a.example/", AT),
        ({"http_proxy": AT}, "https://a.example/", None),
        ({"HTTPS_PROXY": AT, "https_proxy": "http://other:1"}, "https://a.example/", AT),
        ({"HTTP_PROXY": AT}, "http://a.example/", AT),
        ({"HTTP_PROXY": AT, "REQUEST_METHOD": "GET"}, "http://a.example/", None),
        ({"http_proxy": AT, "REQUEST_METHOD": "GET"}, "http://a.example/", AT),
        ({"https_proxy": "proxy.example"}, "https://a.example/", "http://proxy.example:80"),
        ({"https_proxy": "proxy.example:8080"}, "https://a.example/", "http://proxy.example:8080"),
        ({"https_proxy": "https://p.example"}, "https://a.example/", "https://p.example:443"),
        ({"https_proxy": "http://[fd00::1]:3128/"}, "https://a.example/", "http://[fd00::1]:3128"),
        ({"all_proxy": AT, "ALL_PROXY": AT}, "https://a.example/", None),
    ],
)
def test_the_proxy_of_a_url(environ: dict[str, str], url: str, proxy: str | None) -> None:
    found = Proxies.of_environment(environ).proxy_for(url)
    assert (found and found.url) == proxy


@pytest.mark.parametrize(
    ("no_proxy", "direct", "proxied"),
    [
        ("", "localhost localhost:5000 127.0.0.1 127.9.9.9:80 [::1]:5000", "a.example 10.0.0.1"),
        ("*", "a.example 10.0.0.1", ""),
        ("a.example", "a.example b.a.example A.EXAMPLE a.example:5000", "xa.example example"),
        (".a.example", "b.a.example", "a.example"),
        ("*.a.example", "b.a.example", "a.example"),
        ("a.example:5000", "a.example:5000 b.a.example:5000", "a.example a.example:5001"),
        ("a.example:443", "a.example", "a.example:5000"),
        (" x , a.example ,, ", "a.example x", "b.example"),
        ("10.0.0.0/8", "10.1.2.3 10.1.2.3:5000", "11.0.0.1 a.example"),
        ("10.1.2.3", "10.1.2.3 10.1.2.3:5000", "10.1.2.4 x10.1.2.3"),
        ("10.1.2.3:5000", "10.1.2.3:5000", "10.1.2.3"),
        ("fd00::/8", "[fd00::1] [fd12::1]:5000", "[fe00::1]"),
        ("fd00::1", "[fd00::1] [fd00:0::1]:5000", "[fd00::2]"),
        ("[fd00::1]:5000", "[fd00::1]:5000", "[fd00::1]"),
        ("[fd00::1]", "[fd00::1]:5000 [fd00::1]", "[fd00::2]"),
        (":5000", "", "a.example:5000"),
        (".", "", "a.example"),
        ("10.0.0.0/99, a/b", "", "10.0.0.1 a"),
    ],
)
def test_who_is_asked_without_one(no_proxy: str, direct: str, proxied: str) -> None:
    proxies = Proxies.of_environment({**EVERYTHING, "no_proxy": no_proxy})
    for host in direct.split():
        assert proxies.proxy_for(f"https://{host}/v2/") is None, host
    for host in proxied.split():
        assert proxies.proxy_for(f"https://{host}/v2/") == Proxy(AT), host


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("socks5://u:hush@p.example:1080", "kind 'socks5' is not supported"),
        ("http://:3128", "is not the address of a proxy"),
        ("http://p.example:none", "is not the address of a proxy"),
        ("http://[fd00", "is not the address of a proxy"),
    ],
)
def test_what_is_no_proxy_is_said_when_it_is_needed(value: str, said: str) -> None:
    proxies = Proxies.of_environment({"https_proxy": value})
    assert proxies.proxy_for("https://127.0.0.1/") is None
    with pytest.raises(UsageError, match=f"https_proxy.*{said}") as caught:
        proxies.proxy_for("https://a.example/")
    assert "hush" not in str(caught.value)


def test_a_password_is_in_no_repr() -> None:
    proxies = Proxies.of_environment({"https_proxy": "http://me:h%40sh@p.example:3128"})
    found = proxies.proxy_for("https://a.example/")
    assert found is not None
    assert found.login == "me:h@sh"
    for text in (repr(proxies), repr(found), str(found)):
        assert "sh@" not in text
        assert "40sh" not in text


def test_programs_get_both_cases() -> None:
    assert Proxies.of_environment({"HTTPS_PROXY": AT, "no_proxy": "x"}).environment() == {
        "https_proxy": AT,
        "HTTPS_PROXY": AT,
        "no_proxy": "x",
        "NO_PROXY": "x",
    }
    assert DIRECT.environment() == {}


# -- requests


def through(proxy: FakeProxy, login: str = "", scheme: str = "http") -> Proxies:
    at = f"{scheme}://{login}{'@' if login else ''}{proxy.host}"
    return Proxies.of_environment({"http_proxy": at, "https_proxy": at})


def known_as(proxy: FakeProxy, registry: FakeRegistry, port: int) -> str:
    """Let the proxy find ``registry`` under a name that nobody else knows."""
    proxy.names["registry.invalid"] = ("127.0.0.1", registry.server_address[1])
    return f"registry.invalid:{port}" if port != 443 else "registry.invalid"


def test_plain_http_goes_through_it(fake: FakeRegistry, proxy: FakeProxy, tmp_path: Path) -> None:
    host = known_as(proxy, fake, 5000)
    fake.faults.auth = "basic"
    proxy.login = "me:hush"
    credentials = Credentials([auths(tmp_path / "auth.json", host)])
    with HttpRegistry(
        host,
        plain_http=True,
        limits=FAST,
        credentials=credentials,
        proxies=through(proxy, "me:hush"),
    ) as client:
        image = put_image(client.repository("a/b"), "1.0", (b"x" * 300_000,))
        assert client.repository("a/b").resolve("1.0") == image.root
    assert proxy.seen[0].startswith(f"HEAD http://{host}/v2/a/b/blobs/sha256:")
    # Who we are is said to the proxy by its header, and to the registry by its own.
    assert all("Proxy-Authorization" not in item.headers for item in fake.seen)


def test_tls_goes_through_a_tunnel(proxy: FakeProxy, clock: NoWaiting, tmp_path: Path) -> None:
    ca, server_side = throw_away_tls(tmp_path / "registry")
    with fake_registry(server_side) as registry:
        host = known_as(proxy, registry, 443)
        registry.faults.auth = "basic"
        proxy.login = "me:hush"
        auths(tmp_path / "auth.json", host)
        with HttpRegistry(
            host,
            limits=FAST,
            clock=clock,
            credentials=Credentials([tmp_path / "auth.json"]),
            certificates=Certificates((ca,)),
            proxies=through(proxy, "me:hush"),
        ) as client:
            image = put_image(client.repository("a/b"), "1.0", (b"x" * 300_000,))
            assert client.repository("a/b").resolve("1.0") == image.root
    assert set(proxy.seen) == {"CONNECT registry.invalid:443"}
    assert len(proxy.seen) < 4  # the tunnel is used again
    assert PASSWORD not in str(proxy.headers)
    assert USER not in proxy.headers.get("Authorization", "")


def test_a_proxy_that_speaks_tls_itself(tmp_path: Path) -> None:
    ca, server_side = throw_away_tls(tmp_path / "both")
    with fake_registry(server_side) as registry, fake_proxy(server_side) as proxy:
        host = known_as(proxy, registry, 443)
        with HttpRegistry(
            host,
            limits=FAST,
            certificates=Certificates((ca,)),
            proxies=through(proxy, scheme="https"),
        ) as client:
            assert client.repository("a/b").tags() == ()


@pytest.mark.parametrize("plain", [True, False])
def test_a_proxy_that_wants_to_know_who_we_are(
    fake: FakeRegistry, proxy: FakeProxy, clock: NoWaiting, plain: bool
) -> None:
    host = known_as(proxy, fake, 5000)
    proxy.login = "me:hush"
    with HttpRegistry(
        host, plain_http=plain, limits=FAST, clock=clock, proxies=through(proxy, "me:wrongword")
    ) as client:
        with pytest.raises(AuthError, match=f"through the proxy {proxy.host}: ") as caught:
            client.repository("a/b").tags()
    assert "wrongword" not in str(caught.value) + str(caught.value.__cause__)
    assert caught.value.hint == "the variable takes user:password@ before the host"
    assert clock.slept == []
    assert len(proxy.seen) == 1


@pytest.mark.parametrize(("status", "tries"), [(403, 1), (503, 2)])
def test_a_proxy_that_refuses(proxy: FakeProxy, clock: NoWaiting, status: int, tries: int) -> None:
    proxy.status = status
    with HttpRegistry("h.invalid", limits=FAST, clock=clock, proxies=through(proxy)) as client:
        with pytest.raises(TransferError, match=f"proxy {proxy.host}: it refuses: {status} "):
            client.repository("a/b").tags()
    assert len(proxy.seen) == tries


def test_a_proxy_that_is_not_there(clock: NoWaiting) -> None:
    with fake_proxy() as proxy:
        pass
    with HttpRegistry("h.invalid", limits=FAST, clock=clock, proxies=through(proxy)) as client:
        with pytest.raises(TransferError, match=f"through the proxy {proxy.host}: Connection ref"):
            client.repository("a/b").tags()


def test_a_proxy_that_drips_its_answer(proxy: FakeProxy, clock: NoWaiting) -> None:
    proxy.drips = True
    with HttpRegistry("h.invalid", limits=HASTY, clock=clock, proxies=through(proxy)) as client:
        with pytest.raises((StalledError, TransferError), match=r"no (complete )?answer in time"):
            client.repository("a/b").tags()


def test_a_registry_on_the_loopback_is_asked_without_it(
    fake: FakeRegistry, proxy: FakeProxy
) -> None:
    with HttpRegistry(fake.host, limits=FAST, proxies=through(proxy)) as client:
        assert client.repository("a/b").tags() == ()
    assert proxy.seen == []


def test_a_redirect_goes_the_way_of_its_own_host(
    fake: FakeRegistry, stored: FakeRegistry, proxy: FakeProxy
) -> None:
    """A registry inside, whose blobs are outside."""
    proxy.names["cdn.invalid"] = ("127.0.0.1", stored.server_address[1])
    blob = Descriptor(media_type=LAYER, digest=Digest.of(DATA), size=len(DATA))
    with fake_registry() as inside:
        inside.blobs[("a/b", str(blob.digest))] = DATA
        inside.faults.redirect = "http://cdn.invalid"
        with HttpRegistry(
            inside.host, plain_http=True, limits=FAST, proxies=through(proxy)
        ) as client:
            assert client.repository("a/b").blob(blob, limit=len(DATA)) == DATA
    assert [line.partition("/v2/")[0] for line in proxy.seen] == ["GET http://cdn.invalid"]
