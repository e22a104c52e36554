"""QEMU: option syntax, the probe's guest, the end of a log."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from machineos.errors import MachineError
from machineos.host.virt import qemu
from waiting import PATIENCE


def test_probe_disk_has_a_boot_sector() -> None:
    disk = qemu.probe_disk()
    assert len(disk) == 1 << 20
    assert disk[510:512] == b"\x55\xaa"


def test_probe_needs_no_device_node() -> None:
    argv = qemu.argv_probe("kvm", Path("/p"))
    assert "q35,smm=on" in argv
    assert not any("/dev/kvm" in word for word in argv)


@pytest.mark.tool(qemu.PROGRAM)
def test_probe_runs_a_guest(tmp_path: Path) -> None:
    disk = tmp_path / "probe.img"
    disk.write_bytes(qemu.probe_disk())
    assert qemu.probe("tcg", disk, deadline=PATIENCE) == ""


@pytest.mark.tool(qemu.PROGRAM)
def test_a_guest_that_hangs_is_killed(tmp_path: Path) -> None:
    disk = tmp_path / "hang.img"
    hang = b"\xfa\xf4\xeb\xfc".ljust(510, b"\0") + b"\x55\xaa"  # cli; hlt; jmp back
    disk.write_bytes(hang.ljust(1 << 20, b"\0"))
    assert "did not end within 0.5 s" in qemu.probe("tcg", disk, deadline=0.5)
    arguments = os.fsencode(disk)
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert arguments not in entry.read_bytes()
        except OSError:
            continue  # it ended meanwhile, and it was not ours


@pytest.mark.tool(qemu.PROGRAM)
def test_an_accelerator_that_qemu_refuses_gives_its_words(tmp_path: Path) -> None:
    disk = tmp_path / "probe.img"
    disk.write_bytes(qemu.probe_disk())
    assert "invalid accelerator nosuch" in qemu.probe("nosuch", disk, deadline=PATIENCE)


@pytest.mark.parametrize(
    ("log", "wanted"),
    [
        (b"", ""),
        (b"qemu-system-x86_64: warning: no ECX.pni\n", ""),
        (
            b"qemu-system-x86_64: -netdev user,id=net0: Could not set up host forwarding rule\n",
            "-netdev user,id=net0: Could not set up host forwarding rule",
        ),
        (b"first\nqemu-system-x86_64: second\nqemu-system-x86_64: warning: x\n\n", "second"),
        (b"a\x1b[2Jb\n", "a[2Jb"),
        (b"\xff\n", "\ufffd"),
        (b"x" * 9000, "x" * 300),
    ],
)
def test_last_words(log: bytes, wanted: str) -> None:
    assert qemu.last_words(log) == wanted


def test_commas_are_doubled() -> None:
    assert qemu.escape("a,b=c") == "a,,b=c"


def test_node_paths_are_absolute() -> None:
    with pytest.raises(MachineError):
        qemu.node("a", Path("x.qcow2"), "qcow2", frozen=False, careless=False)
