"""qemu-system-x86_64: option syntax, the accelerator probe's guest, and what its log says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from machineos.core.command import Command
from machineos.errors import MachineError

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.core.command import Result

PROGRAM = "qemu-system-x86_64"
# A guest that has taken QEMU over finds no program to start, no other user to become, no old system
# calls. A QEMU that was built without seccomp says so and does not start (docs/adr/0027).
SANDBOX = (
    "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
)  # fmt: skip
PROBE_DEADLINE = 10.0  # a good accelerator needs a fraction of a second, one that hangs all of it
_PROBE_EXIT = 33  # isa-debug-exit: (0x10 << 1) | 1
_PROBE_SIZE = 1 << 20  # SeaBIOS passes over a disk of one sector
# mov al, 0x10; out 0xf4, al; cli; hlt; jmp $-2
_PROBE_CODE = bytes([0xB0, 0x10, 0xE6, 0xF4, 0xFA, 0xF4, 0xEB, 0xFC])
_LOG_TAIL = 4096
_NOISE = ("warning:", "info:")


def escape(text: str) -> str:
    """Return ``text`` as a value inside a QEMU option list, where a comma is written twice."""
    return text.replace(",", ",,")


def option(kind: str, value: dict[str, object]) -> list[str]:
    """Return an option whose value is given as JSON, which needs no escaping."""
    return [f"-{kind}", json.dumps(value, separators=(",", ":"))]


def probe_disk() -> bytes:
    """Return a disk whose boot sector leaves QEMU through isa-debug-exit at once."""
    sector = _PROBE_CODE.ljust(510, b"\0") + b"\x55\xaa"
    return sector.ljust(_PROBE_SIZE, b"\0")


def probe_command(accelerator: str, disk: Path, *, deadline: float = PROBE_DEADLINE) -> Command:
    """Return the call that boots the probe's disk through firmware, with system management mode
    as Secure Boot needs it. An accelerator that runs only a few instructions hangs in there."""
    drive = {
        "driver": "raw",
        "node-name": "probe",
        "read-only": True,
        "file": {"driver": "file", "filename": str(disk)},
    }
    argv = (
        PROGRAM, *SANDBOX, "-nodefaults", "-no-user-config", "-display", "none",
        "-machine", "q35,smm=on",
        "-accel", accelerator, "-m", "64", *option("blockdev", drive),
        "-device", "virtio-blk-pci,drive=probe,bootindex=0",
        "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
    )  # fmt: skip
    return Command(argv, deadline, success=None)


def parse_probe(result: Result) -> str:
    """Return the empty string, or why the accelerator cannot be used."""
    if result.status == _PROBE_EXIT:
        return ""
    return last_words(result.stderr) or f"QEMU ended with status {result.status}"


def last_words(log: bytes) -> str:
    """Return the last line of QEMU's log that is not a warning, without the program's name."""
    lines = log[-_LOG_TAIL:].decode("utf-8", "replace").splitlines()
    for line in reversed(lines):
        text = "".join(char for char in line if char.isprintable()).strip()
        text = text.removeprefix(f"{PROGRAM}: ")
        if text and not text.startswith(_NOISE):
            return text[:300].rstrip(".")
    return ""


def node(name: str, path: Path, kind: str, *, frozen: bool, careless: bool) -> dict[str, object]:
    """Return a block node for an image file.

    Flushes of the guest reach the disk unless ``careless``; the host's page cache is used.
    Raises: MachineError for a path that is not absolute.
    """
    if not path.is_absolute():
        raise MachineError(f"{path} is not an absolute path")
    cache = {"direct": False, "no-flush": careless}
    return {
        "driver": kind,
        "node-name": name,
        "read-only": frozen,
        "cache": cache,
        "discard": "unmap",
        "file": {
            "driver": "file",
            "filename": str(path),
            "cache": cache,
            "discard": "unmap",
            "locking": "on",
        },
    }
