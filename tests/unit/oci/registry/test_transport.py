"""Registries that die half-way or are busy, and where credentials and plain HTTP may go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fakes.registry import FakeRegistry, fake_registry
from fakes.tls import throw_away_tls
from machineos.core.digest import Digest
from machineos.errors import (
    AuthError,
    TransferError,
)
from machineos.oci.graph.copy import copy_graph
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.registry.certificates import Certificates
from machineos.oci.registry.client import HttpRegistry, Limits
from unit.oci.conftest import FAST
from unit.oci.samples import DATA, NoWaiting, put_image, read

if TYPE_CHECKING:
    from pathlib import Path


# -- a registry that dies half-way


def test_a_broken_pull_goes_on_where_it_broke(stored: FakeRegistry, client: HttpRegistry) -> None:
    stored.faults.die_after = [300_000]
    assert read(client) == DATA
    ranges = [item.headers.get("Range") for item in stored.seen]
    assert ranges[0] is None
    assert len(ranges) == 2
    assert ranges[1] is not None
    assert ranges[1] != "bytes=0-"


def test_a_server_without_ranges_is_read_past(stored: FakeRegistry, client: HttpRegistry) -> None:
    stored.faults.die_after = [300_000]
    stored.faults.ignore_range = True
    assert read(client) == DATA


def test_an_answer_for_another_range_is_refused(stored: FakeRegistry, client: HttpRegistry) -> None:
    stored.faults.die_after = [300_000]
    stored.faults.wrong_range = True
    with pytest.raises(TransferError, match="asked for bytes from"):
        read(client)


def test_dying_for_ever_ends(stored: FakeRegistry, client: HttpRegistry) -> None:
    stored.faults.die_after = [10] * 100
    with pytest.raises(TransferError, match="broke"):
        read(client)
    assert len(stored.seen) == FAST.attempts


def test_a_pull_that_dies_leaves_no_name(
    stored: FakeRegistry, client: HttpRegistry, tmp_path: Path
) -> None:
    image = put_image(client.repository("c"), "1.0", (DATA,))
    stored.faults.die_after = [1000] * 100
    sink = LayoutRepository(tmp_path / "sink", writable=True)
    with pytest.raises(TransferError):
        copy_graph(client.repository("c"), sink, "1.0", tag="1.0")
    assert sink.tags() == ()
    assert not sink.has_blob(image.layers[0].digest)
    assert not list(tmp_path.rglob(".*"))
    stored.faults.die_after = []
    assert copy_graph(client.repository("c"), sink, "1.0", tag="1.0") == image.root


def test_a_document_that_breaks_off_is_asked_for_again_and_never_used(
    fake: FakeRegistry, client: HttpRegistry
) -> None:
    repository = client.repository("a/b")
    subject = put_image(repository).root
    fake.faults.documents = "die"
    calls = (
        lambda: repository.manifest("1.0"),
        lambda: repository.referrers(subject.digest),
        repository.tags,
    )
    for call in calls:
        before = len(fake.seen)
        with pytest.raises(TransferError, match="broke"):
            call()
        assert len(fake.seen) - before == FAST.attempts


# -- passing trouble


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_passing_trouble_is_waited_out(stored: FakeRegistry, clock: NoWaiting, status: int) -> None:
    stored.faults.busy = [(status, "7")]
    with HttpRegistry(stored.host, limits=FAST, clock=clock) as client:
        assert read(client) == DATA
        stored.faults.busy = [(status, "7")]
        assert client.repository("a/b").has_blob(Digest.of(DATA))
    assert clock.slept == [7.0, 7.0]


def test_retry_after_is_bounded(stored: FakeRegistry, clock: NoWaiting) -> None:
    stored.faults.busy = [(429, "999999")]
    with HttpRegistry(stored.host, limits=FAST, clock=clock) as client:
        assert client.repository("a/b").has_blob(Digest.of(DATA))
    assert clock.slept == [FAST.retry_after_max]


def test_waits_grow_and_repeat_with_the_seed(stored: FakeRegistry) -> None:
    runs = []
    for _ in range(2):
        clock = NoWaiting()
        stored.faults.busy = [(503, "")] * 4
        with HttpRegistry(stored.host, limits=Limits(), clock=clock, seed=7) as client:
            assert client.repository("a/b").has_blob(Digest.of(DATA))
        runs.append(clock.slept)
    assert runs[0] == runs[1] == sorted(runs[0])
    assert len(runs[0]) == 4


def test_no_registry_at_all(clock: NoWaiting) -> None:
    with fake_registry() as gone:
        host = gone.host
    with HttpRegistry(host, limits=FAST, clock=clock) as client:
        with pytest.raises(TransferError, match="cannot connect"):
            client.repository("a/b").tags()


# -- where credentials and plain HTTP may go


def test_a_redirect_is_followed_without_credentials(
    stored: FakeRegistry, clock: NoWaiting, tmp_path: Path
) -> None:
    from machineos.oci.registry.auth import Credentials
    from unit.oci.registry.test_auth import write_auth

    with fake_registry() as elsewhere:
        elsewhere.blobs.update(stored.blobs)
        stored.faults.redirect = f"http://{elsewhere.host}"
        stored.faults.auth = "basic"
        credentials = Credentials([write_auth(tmp_path, stored.host)])
        with HttpRegistry(stored.host, limits=FAST, clock=clock, credentials=credentials) as client:
            assert read(client) == DATA
        assert "Authorization" in stored.seen[-1].headers
        assert [item.headers.get("Authorization") for item in elsewhere.seen] == [None]


@pytest.mark.parametrize("kind", ["basic", "bearer"])
def test_a_challenge_from_elsewhere_is_not_answered(
    stored: FakeRegistry, clock: NoWaiting, tmp_path: Path, kind: str
) -> None:
    """CVE-2020-15157: where blobs are redirected to asks for the registry's password."""
    from machineos.oci.registry.auth import Credentials
    from unit.oci.registry.test_auth import write_auth

    with fake_registry() as elsewhere:
        elsewhere.blobs.update(stored.blobs)
        elsewhere.faults.auth = kind
        stored.faults.redirect = f"http://{elsewhere.host}"
        credentials = Credentials([write_auth(tmp_path, stored.host)])
        with HttpRegistry(stored.host, limits=FAST, clock=clock, credentials=credentials) as client:
            with pytest.raises(AuthError):
                read(client)
        assert [item.path.partition("?")[0] for item in elsewhere.seen] == [
            f"/v2/a/b/blobs/{Digest.of(DATA)}"
        ]
        assert "Authorization" not in elsewhere.seen[0].headers
        assert not any("Authorization" in item.headers for item in stored.seen)


@pytest.mark.parametrize(
    "where", ["file:///etc/passwd#", "http://user@127.0.0.1:1", "http://192.0.2.1", "ftp://x"]
)
def test_redirects_to_elsewhere_are_refused(
    stored: FakeRegistry, client: HttpRegistry, where: str
) -> None:
    stored.faults.redirect = where
    with pytest.raises(TransferError, match=r"sends us|plain HTTP"):
        read(client)


def test_circles_end(stored: FakeRegistry, client: HttpRegistry) -> None:
    stored.faults.redirect = f"http://{stored.host}"
    with pytest.raises(TransferError, match="redirects"):
        read(client)


def test_plain_http_is_for_loopback_or_on_request() -> None:
    for host, plain, scheme in [
        ("127.0.0.1:5000", False, "http"),
        ("localhost", False, "http"),
        ("[::1]:5000", False, "http"),
        ("10.0.2.2:5000", False, "https"),
        ("10.0.2.2:5000", True, "http"),
        ("127.0.0.1.example.com", False, "https"),
    ]:
        with HttpRegistry(host, plain_http=plain) as client:
            assert client._transport.base == f"{scheme}://{host}"


# -- TLS


def test_tls_needs_a_ca_that_we_know(clock: NoWaiting, tmp_path: Path) -> None:
    ours, server_side = throw_away_tls(tmp_path / "ours")
    strangers, _ = throw_away_tls(tmp_path / "strangers")
    with fake_registry(server_side) as server:
        server.blobs[("a/b", str(Digest.of(DATA)))] = DATA
        known = Certificates((ours,))
        with HttpRegistry(server.host, limits=FAST, clock=clock, certificates=known) as client:
            assert read(client) == DATA
            server.faults.redirect = "http://127.0.0.1:1"
            with pytest.raises(TransferError, match="from https to"):
                read(client)
        known = Certificates((strangers,))
        with HttpRegistry(server.host, limits=FAST, clock=clock, certificates=known) as client:
            with pytest.raises(TransferError, match="TLS"):
                client.repository("a/b").tags()
    assert clock.slept == []  # a wrong certificate does not get better by waiting
