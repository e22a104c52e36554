"""The contract of the installer's host: for the machine in memory, and for this host as far as it
goes: not every kernel knows GPT, FAT and device-mapper. A guest does all of it (tests/vm)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from contracts.install import CLAUSES, Clause, clauses
from contracts.machine import RealMachine, has_keyring
from fakes.hardware import Format, Part
from fakes.machine import FakeHost, FakeMachine
from fakes.persistence import Loss
from machineos.core.digest import Digest
from machineos.core.secret import Secret
from machineos.document.product.artifacts import ROOT_HASH_SIGNATURE
from machineos.host.disk.device import Disk
from machineos.host.disk.sfdisk import PartitionSpec
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.repository import Repository
from machineos.state.volumes.steps import Kind
from unit.document.conftest import MemoryRepository
from unit.oci.samples import put_artifact, put_image

BENCH = Disk("bench", 1 << 40, read_only=False, removable=False)
SPARE = Disk("vdb", 1 << 40, read_only=False, removable=False)


class FakeRig:
    """The machine in memory, with a disk of four partitions to work on and one to spoil."""

    disk = SPARE.device
    esp: Kind = "vfat"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: list[str] = []
        self.machine = FakeMachine((BENCH, SPARE), {}, {}, frozenset())
        parts = tuple(Part(PartitionSpec("x", "x", 64 << 20), f"bench {n}") for n in range(4))
        self.machine.kept.set_at_once(("table", "bench"), parts)
        self.machine.kept.set_at_once(("format", "bench 3"), Format("nothing", ""))
        self.host: FakeHost = self.machine.boot()

    def work(self, name: str) -> Path:
        return Path("/work") / name

    def device(self, name: str) -> Path:
        if name not in self._names:
            self._names.append(name)
        return Path(f"/dev/bench{self._names.index(name) + 1}")

    def plain_file(self, name: str, data: bytes) -> Path:
        path = Path("/plain") / name
        self.host.memory_files[path] = data
        return path

    def staged(self, layers: Mapping[str, bytes]) -> tuple[Path, dict[str, Digest]]:
        layout = MemoryRepository()
        images = {}
        for name, layer in layers.items():
            image = put_image(layout, name, (layer,))
            put_artifact(layout, image.root, f"signature of {name}".encode(), ROOT_HASH_SIGNATURE)
            images[name] = image.root.digest
        self.host.staged[Path("/staged")] = layout
        return Path("/staged"), images

    def stored(self, layout: Path) -> Repository:
        """Written out, so that the reader of real layouts judges what the fake has written."""
        for name, data in self.host.files_in(layout).items():
            path = self._folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return LayoutRepository(self._folder)

    def files(self, folder: Path) -> dict[str, bytes]:
        return self.host.files_in(folder)

    def keep_key(self, name: str, key: Secret) -> None:
        self.host.keys[name] = key

    def power_cut(self) -> None:
        self.machine.power_cut(Loss("lost"))
        self.host = self.machine.boot()

    def damage(self, content: bytes) -> int:
        return self.host.damage(content)


@pytest.mark.parametrize("clause", clauses(CLAUSES), ids=lambda clause: clause.__name__)
def test_the_machine_in_memory(clause: Clause, tmp_path: Path) -> None:
    clause(FakeRig(tmp_path))


@pytest.fixture
def here(tmp_path: Path) -> Iterator[RealMachine]:
    known = Path("/proc/filesystems").read_text().split()
    kind: Kind = "vfat" if "vfat" in known else "ext4"
    machine = RealMachine(tmp_path, esp=kind, disk=tmp_path / "none")
    yield machine
    machine.close()


@pytest.mark.system
@pytest.mark.tool("mkfs.vfat")
@pytest.mark.tool("sfdisk")
@pytest.mark.parametrize("clause", clauses(("any", "loop")), ids=lambda clause: clause.__name__)
def test_this_host(clause: Clause, here: RealMachine) -> None:
    clause(here)


@pytest.mark.system
@pytest.mark.parametrize("clause", clauses(("keyring",)), ids=lambda clause: clause.__name__)
def test_the_keyring_of_this_host(clause: Clause, here: RealMachine) -> None:
    if not has_keyring():
        pytest.skip("no key service in this container")
    clause(here)


def test_every_clause_is_tried() -> None:
    import contracts.install as contract

    named = {
        value
        for name, value in vars(contract).items()
        if callable(value) and getattr(value, "__module__", "") == contract.__name__
        and list(getattr(value, "__annotations__", {}).items())[:1] == [("rig", "Rig")]
        and getattr(value, "__annotations__", {}).get("return") == "None"
    }  # fmt: skip
    assert named == {clause for group in CLAUSES.values() for clause in group}
