"""QEMU: option syntax, the probe's guest, the end of a log."""

from __future__ import annotations

from pathlib import Path

import pytest

from machineos.core.command import Command, Result
from machineos.errors import MachineError
from machineos.host.virt import qemu


def left(status: int, stderr: bytes) -> Result:
    return Result((qemu.PROGRAM,), status, b"", stderr)


def test_probe_disk_has_a_boot_sector() -> None:
    disk = qemu.probe_disk()
    assert len(disk) == 1 << 20
    assert disk[:9] == b"\xb0\x10\xe6\xf4\xfa\xf4\xeb\xfc\x00"
    assert disk[510:512] == b"\x55\xaa"


def test_the_probe_is_a_whole_machine_and_every_end_of_it_an_answer() -> None:
    command = qemu.probe_command("kvm", Path("/p"))
    node = (
        '{"driver":"raw","node-name":"probe","read-only":true,'
        '"file":{"driver":"file","filename":"/p"}}'
    )
    assert command == Command(
        (
            "qemu-system-x86_64", "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
            "-nodefaults", "-no-user-config", "-display", "none",
            "-machine", "q35,smm=on", "-accel", "kvm", "-m", "64", "-blockdev", node,
            "-device", "virtio-blk-pci,drive=probe,bootindex=0",
            "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
        ),
        10.0,
        success=None,
    )  # fmt: skip
    assert qemu.probe_command("tcg", Path("/p"), deadline=0.9).timeout == 0.9


def test_only_the_words_of_the_probe_itself_are_good() -> None:
    assert qemu.parse_probe(left(33, b"qemu-system-x86_64: warning: x\n")) == ""
    assert qemu.parse_probe(left(0, b"")) == "QEMU ended with status 0"
    assert qemu.parse_probe(left(1, b"qemu-system-x86_64: no kvm.\n")) == "no kvm"


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


def test_a_node_locks_its_file_and_flushes_unless_the_machine_is_throw_away() -> None:
    node = qemu.node("a", Path("/x"), "qcow2", frozen=True, careless=False)
    cache = {"direct": False, "no-flush": False}
    file = {"driver": "file", "filename": "/x", "cache": cache, "discard": "unmap", "locking": "on"}
    assert node == {
        "driver": "qcow2",
        "node-name": "a",
        "read-only": True,
        "cache": cache,
        "discard": "unmap",
        "file": file,
    }
    careless = qemu.node("a", Path("/x"), "raw", frozen=False, careless=True)
    assert careless["cache"] == {"direct": False, "no-flush": True}
    assert careless["read-only"] is False
