"""Disks: made, imported, checked; never overwritten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from machineos.core import run
from machineos.errors import MachineError, MissingError, ToolError
from machineos.host.virt import qemuimg, tools
from machineos.vm.model import Config, Disk, Machine, Size
from machineos.vm.paths import MachinePaths
from machineos.vm.qemu.disks import place_disks
from machineos.vm.qemu.placement import localize
from waiting import PATIENCE

pytestmark = pytest.mark.tool("qemu-img")
MIB = 1 << 20


@pytest.fixture
def paths(tmp_path: Path) -> MachinePaths:
    state = tmp_path / "state"
    state.mkdir()
    return MachinePaths(tmp_path / "machine.yaml", state, state, tmp_path / "lock")


def machine(*disks: Disk, **more: Any) -> Machine:  # noqa: ANN401 (any field)
    return Machine(name="a", config=Config(name="a", disks=disks, **more))


def test_made_once(paths: MachinePaths) -> None:
    one = machine(Disk(file="a.qcow2", size=Size(8 * MIB)))
    place_disks(one, paths)
    path = paths.state / "a.qcow2"
    assert tools.describe_image(path, "qcow2") == qemuimg.Image("qcow2", 8 * MIB, "")
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.stat().st_mtime_ns
    place_disks(one, paths)
    assert path.stat().st_mtime_ns == before


def test_another_size_is_refused(paths: MachinePaths) -> None:
    place_disks(machine(Disk(file="a.qcow2", size=Size(8 * MIB))), paths)
    with pytest.raises(MachineError, match=rf"has {8 * MIB} bytes, machine.yaml says {9 * MIB}"):
        place_disks(machine(Disk(file="a.qcow2", size=Size(9 * MIB))), paths)


def test_imported_as_a_copy(paths: MachinePaths, tmp_path: Path) -> None:
    source = tmp_path / "sudi.vfat"
    source.write_bytes(b"s" * MIB)
    one = machine(Disk(file=str(source), format="raw"))
    place_disks(one, paths)
    copy = paths.state / "sudi.vfat"
    assert copy.read_bytes() == source.read_bytes()
    assert localize(one, paths).config.disks[0].file == str(copy)
    copy.write_bytes(b"w" * MIB)  # the guest writes
    place_disks(one, paths)
    assert copy.read_bytes() == b"w" * MIB
    assert source.read_bytes() == b"s" * MIB


def test_what_cannot_be_written_is_used_in_place(paths: MachinePaths, tmp_path: Path) -> None:
    source = tmp_path / "x.raw"
    source.write_bytes(b"s" * MIB)
    one = machine(Disk(file=str(source), format="raw", read_only=True), cdrom=str(source))
    place_disks(one, paths)
    assert localize(one, paths) == one
    assert not list(paths.state.iterdir())


def test_missing(paths: MachinePaths, tmp_path: Path) -> None:
    for disk in (Disk(file="a.qcow2"), Disk(file=str(tmp_path / "b.qcow2"))):
        with pytest.raises(MissingError, match="does not exist"):
            place_disks(machine(disk), paths)
    with pytest.raises(MissingError, match="no such folder"):
        place_disks(machine(Disk(file=str(tmp_path / "x/b"), size=Size(MIB))), paths)
    with pytest.raises(MissingError, match="cdrom"):
        place_disks(machine(cdrom=str(tmp_path / "c.iso")), paths)
    with pytest.raises(MachineError, match="neither a file nor"):
        place_disks(machine(cdrom=str(tmp_path)), paths)


def test_a_raw_file_is_not_taken_for_qcow2(paths: MachinePaths, tmp_path: Path) -> None:
    source = tmp_path / "x.qcow2"
    source.write_bytes(b"s" * MIB)
    with pytest.raises(ToolError, match="not in qcow2 format"):
        place_disks(machine(Disk(file=str(source))), paths)


def test_an_image_that_reads_another_file_is_not_imported(
    paths: MachinePaths, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * MIB)
    overlay = tmp_path / "overlay.qcow2"
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(secret), str(overlay)]
    run.run(argv, timeout=PATIENCE)
    with pytest.raises(MachineError, match="stands on another image"):
        place_disks(machine(Disk(file=str(overlay))), paths)
    assert not list(paths.state.iterdir())
