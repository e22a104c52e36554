"""Nothing is made for a manifest that does not verify."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.randomness import FixedRandomness
from machineos.errors import ConflictError, MachineOSError, PolicyError, SignatureError
from machineos.launch.machine import Request, launch_machine
from machineos.trust.keys.keyset import Keyset, add_project
from machineos.vm.store import MachineStore
from vectors.clock import FixedClock

from .conftest import Shelf


def files(*folders: Path) -> set[Path]:
    return {path for folder in folders for path in folder.rglob("*")}


@pytest.fixture
def store(tmp_path: Path) -> MachineStore:
    return MachineStore(tmp_path / "config", tmp_path / "state", tmp_path / "run")


def refused(
    kind: type[MachineOSError],
    shelf: Shelf,
    keyset: Keyset,
    store: MachineStore,
) -> None:
    request = Request("vm1", shelf.place, keyset, keyset.project("default"))
    before = files(shelf.folder)
    with pytest.raises(kind):
        launch_machine(
            request,
            store,
            FixedClock(),
            FixedRandomness("later"),
            credentials=None,
            say=lambda _text: None,
        )
    assert files(shelf.folder) == before
    assert store.names() == ()


def test_a_manifest_of_somebody_else(
    shelf: Shelf, own: Keyset, two: Keyset, store: MachineStore
) -> None:
    shelf.publish(two.project("default"))
    refused(SignatureError, shelf, own, store)


def test_a_manifest_of_another_project(
    shelf: Shelf, own: Keyset, store: MachineStore, clock: FixedClock
) -> None:
    shelf.publish(
        add_project(own, "other", clock=clock, random=FixedRandomness("later"), passphrase=None)
    )
    refused(PolicyError, shelf, own, store)


def test_a_blob_that_was_changed(shelf: Shelf, own: Keyset, store: MachineStore) -> None:
    shelf.publish(own.project("default"))
    for path in (shelf.folder / "registry/machine/install/blobs/sha256").iterdir():
        data = path.read_bytes()
        if data == b"{}":
            continue
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        refused(MachineOSError, shelf, own, store)
        path.write_bytes(data)


def test_a_machine_that_exists_is_left_alone(
    shelf: Shelf, own: Keyset, store: MachineStore
) -> None:
    path = store.definitions / "vm1/machine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    request = Request("vm1", shelf.place, own, own.project("default"))
    with pytest.raises(ConflictError, match="exists already"):
        launch_machine(
            request,
            store,
            FixedClock(),
            FixedRandomness("later"),
            credentials=None,
            say=lambda _text: None,
        )
    assert path.read_text() == "mine"
    assert own.project("default").list_sudis() == []
