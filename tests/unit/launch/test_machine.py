"""Nothing is made for a manifest that does not verify."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.machines import MemoryProvider
from fakes.randomness import FixedRandomness
from machineos.errors import ConflictError, MachineOSError, PolicyError, SignatureError
from machineos.launch.machine import launch_machine
from machineos.launch.request import Request
from machineos.oci.model.documents import INDEX
from machineos.oci.registry.access import Access
from machineos.trust.keys.keyset import Keyset, add_project
from machineos.vm.model import default_machine
from vectors.clock import FixedClock

from .conftest import Shelf


def files(*folders: Path) -> set[Path]:
    return {path for folder in folders for path in folder.rglob("*")}


@pytest.fixture
def provider() -> MemoryProvider:
    return MemoryProvider()


def refused(
    kind: type[MachineOSError],
    shelf: Shelf,
    keyset: Keyset,
    provider: MemoryProvider,
) -> None:
    request = Request("vm1", shelf.place, keyset, keyset.project("default"))
    before = files(shelf.folder)
    with pytest.raises(kind):
        launch_machine(
            request, provider, FixedClock(), FixedRandomness("later"),
            access=Access(), say=lambda _text: None,
        )  # fmt: skip
    assert files(shelf.folder) == before
    assert list(provider.names()) == []


def test_a_manifest_of_somebody_else(
    shelf: Shelf, own: Keyset, two: Keyset, provider: MemoryProvider
) -> None:
    shelf.publish(two.project("default"))
    refused(SignatureError, shelf, own, provider)


def test_a_manifest_of_another_project(
    shelf: Shelf, own: Keyset, provider: MemoryProvider, clock: FixedClock
) -> None:
    other = add_project(own, "other", clock=clock, random=FixedRandomness("later"), passphrase=None)
    shelf.publish(other)
    refused(PolicyError, shelf, own, provider)


def test_a_blob_that_was_changed(shelf: Shelf, own: Keyset, provider: MemoryProvider) -> None:
    shelf.publish(own.project("default"))
    for path in (shelf.folder / "registry/machine/install/blobs/sha256").iterdir():
        data = path.read_bytes()
        if data == b"{}" or data.startswith(b'{"schemaVersion":2,"mediaType":"' + INDEX.encode()):
            continue  # or a list of referrers, which is there for others
        if b"cosign" in data or data.startswith(b'{"architecture":""'):
            continue  # what cosign asks for, and no machine
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        refused(MachineOSError, shelf, own, provider)
        path.write_bytes(data)


def test_a_machine_that_exists_is_left_alone(
    shelf: Shelf, own: Keyset, provider: MemoryProvider
) -> None:
    mine = default_machine("vm1", secure=False)
    provider.define(mine)
    request = Request("vm1", shelf.place, own, own.project("default"))
    with pytest.raises(ConflictError, match="exists already"):
        launch_machine(
            request, provider, FixedClock(), FixedRandomness("later"),
            access=Access(), say=lambda _text: None,
        )  # fmt: skip
    assert provider.machine("vm1") == mine
    assert provider.started == []
    assert own.project("default").list_sudis() == []
