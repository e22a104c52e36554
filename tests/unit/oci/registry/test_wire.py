"""Whatever a registry is asked for has its end: also when it stalls, or drips byte by byte."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from changed import replace
from fakes.registry import FakeRegistry
from machineos.errors import (
    StalledError,
    TransferError,
)
from machineos.oci.registry.auth import Credentials
from machineos.oci.registry.client import HttpRegistry
from unit.oci.conftest import FAST, HASTY
from unit.oci.registry.test_auth import write_auth
from unit.oci.samples import DATA, NoWaiting, descriptor, put_bytes, put_image, read

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.early


@pytest.mark.parametrize(
    "fault",
    [{"stall_after": 100}, {"drip": True}, {"drip_headers": True}, {"drip_chunk_size": True}],
    ids=lambda fault: next(iter(fault)),
)
def test_stalls_end(stored: FakeRegistry, hasty: HttpRegistry, fault: dict[str, object]) -> None:
    for key, value in fault.items():
        setattr(stored.faults, key, value)
    with pytest.raises(StalledError):
        read(hasty)


@pytest.mark.parametrize("fault", ["stall", "drip"])
@pytest.mark.parametrize("what", ["manifest", "referrers", "tags"])
def test_documents_that_stall_end(
    fake: FakeRegistry, client: HttpRegistry, hasty: HttpRegistry, what: str, fault: str
) -> None:
    """Not only blobs: whatever is asked for on the way to one."""
    repository = hasty.repository("a/b")
    subject = put_image(client.repository("a/b")).root
    calls = {
        "manifest": lambda: repository.manifest("1.0"),
        "referrers": lambda: repository.referrers(subject.digest),
        "tags": repository.tags,
    }
    fake.faults.documents = fault
    with pytest.raises(StalledError):
        calls[what]()


def test_a_document_that_drips_just_fast_enough_ends_too(
    fake: FakeRegistry, client: HttpRegistry
) -> None:
    """4 MiB at the slowest rate that is no stall would take hours."""
    put_image(client.repository("a/b"))
    fake.faults.documents = "drip"
    limits = replace(HASTY, window_bytes=1, document_seconds=0.5, attempts=1)
    with HttpRegistry(fake.host, limits=limits) as slow:
        with pytest.raises(StalledError, match=r"bytes in 0\.5 s"):
            slow.repository("a/b").manifest("1.0")


@pytest.mark.parametrize("fault", ["stall", "drip"])
def test_a_token_service_that_stalls_ends(
    fake: FakeRegistry, clock: NoWaiting, tmp_path: Path, fault: str
) -> None:
    credentials = Credentials([write_auth(tmp_path, fake.host)])
    fake.faults.auth = "bearer"
    with HttpRegistry(fake.host, limits=FAST, clock=clock, credentials=credentials) as client:
        assert client.repository("a/b").tags() == ()
    fake.faults.documents = fault
    with HttpRegistry(fake.host, limits=HASTY, clock=clock, credentials=credentials) as client:
        with pytest.raises(StalledError):
            client.repository("a/b").tags()


class Standing(NoWaiting):
    """A clock that stands, so that no read takes any time."""

    at = 0.0

    def monotonic(self) -> float:
        return self.at


def test_a_slow_reader_is_not_a_stalled_server(stored: FakeRegistry) -> None:
    clock, limits = Standing(), replace(FAST, window_seconds=0.1)
    with HttpRegistry(stored.host, limits=limits, clock=clock) as client:
        with client.repository("a/b").open_blob(descriptor(DATA)) as chunks:
            got = [next(chunks)]
            clock.at += 100
            threading.Event().wait(5 * limits.window_seconds)  # who watches has looked
            got += chunks
    assert b"".join(got) == DATA


@pytest.mark.parametrize("how", ["deaf", "mute"])
def test_uploads_that_stall_end(fake: FakeRegistry, hasty: HttpRegistry, how: str) -> None:
    fake.faults.upload_stalls = how
    for data in (b"small", bytes(20 << 20)):  # more than the buffers of a connection hold
        with pytest.raises(TransferError):
            put_bytes(hasty.repository("a/b"), data)
    assert not fake.blobs
