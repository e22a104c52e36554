"""Where machines are kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from machineos.core.files import locked
from machineos.errors import ConflictError, DocumentError, MachineError, MissingError, UsageError
from machineos.vm.model import Machine, default_machine
from machineos.vm.store import MachineStore


@pytest.fixture
def store(tmp_path: Path) -> MachineStore:
    short = Path("/nowhere")  # nothing is made there
    return MachineStore(tmp_path / "c", tmp_path / "s", short)


def test_layout_is_the_predecessors(store: MachineStore) -> None:
    paths = store.create(default_machine("vm1", secure=True))
    assert paths.definition == store.config_root / "machine/machines/vm1/machine.yaml"
    assert paths.state == store.state_root / "machine/machines/vm1/vm1"
    assert paths.definition.stat().st_mode & 0o777 == 0o600
    assert paths.state.stat().st_mode & 0o777 == 0o700
    assert store.names() == ("vm1",)
    assert store.load("vm1") == default_machine("vm1", secure=True)


def test_a_name_is_given_once(store: MachineStore) -> None:
    store.create(default_machine("vm1", secure=True))
    with pytest.raises(ConflictError, match="vm1 exists"):
        store.create(default_machine("vm1", secure=False))
    assert store.load("vm1").config.secure_boot


def test_a_machine_in_use_is_not_created(store: MachineStore) -> None:
    with (
        locked(store.paths("vm1").lock, what="x"),
        pytest.raises(ConflictError, match="machine vm1 is in use"),
    ):
        store.create(default_machine("vm1", secure=True))


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "a" * 64, "a\0"])
def test_what_is_no_name_is_no_path(store: MachineStore, name: str) -> None:
    with pytest.raises(UsageError):
        store.paths(name)


def test_missing_machine(store: MachineStore) -> None:
    calls: tuple[Callable[[str], object], ...] = (store.load, store.require)
    for call in calls:
        with pytest.raises(MissingError, match="no machine vm1"):
            call("vm1")
    with pytest.raises(MissingError):
        store.replace(default_machine("vm1", secure=True))
    assert store.names() == ()


def test_definition_under_another_name_is_refused(store: MachineStore) -> None:
    paths = store.create(default_machine("vm1", secure=True))
    paths.definition.write_text("name: vm2\n")
    with pytest.raises(MachineError, match="defines vm2"):
        store.load("vm1")
    paths.definition.write_text("name: vm1\ncpus: 3\n")
    with pytest.raises(DocumentError, match="line 2: cpus"):
        store.load("vm1")


def test_remove_leaves_nothing_and_no_other_machine_is_touched(store: MachineStore) -> None:
    paths = store.create(default_machine("vm1", secure=True))
    store.create(default_machine("vm2", secure=True))
    (paths.state / "vm1.qcow2").write_bytes(b"x")
    store.remove("vm1")
    assert store.names() == ("vm2",)
    assert not paths.state.parent.exists()
    store.remove("vm1")


def test_replace(store: MachineStore) -> None:
    store.create(default_machine("vm1", secure=True))
    store.replace(Machine(name="vm1", description="new", config=store.load("vm1").config))
    assert store.load("vm1").description == "new"


def test_long_socket_paths_move_to_the_runtime_folder(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    short = Path("/nowhere")
    store = MachineStore(tmp_path, deep, short)
    one, two = store.paths("a").sockets, store.paths("b").sockets
    assert one.parent == short / "machine"
    assert one != two
    assert len(bytes(store.paths("a").console)) <= 107
    with pytest.raises(MachineError, match="too long") as caught:
        MachineStore(tmp_path, deep, deep).paths("a")
    assert caught.value.hint == "set XDG_RUNTIME_DIR to a short folder"
