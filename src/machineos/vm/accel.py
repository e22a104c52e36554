"""Which accelerator this host has: found by running a guest, never by looking for a device node.

/dev/kvm can be there, open, and still never run a kernel. The answer holds until the host boots
again and is kept with its boot id; anything odd about the file means to probe again.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from machineos.core.files import read_bounded, write_atomic
from machineos.core.jsondoc import decode_json
from machineos.errors import MachineOSError
from machineos.host.virt import qemu

Kind = Literal["kvm", "tcg"]
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Accelerator:
    """``kvm`` or ``tcg``; ``reason`` says why it is not kvm."""

    kind: Kind
    reason: str = ""

    @property
    def notice(self) -> str:
        """One line for the user when guests will be slow, else the empty string."""
        if self.kind == "kvm" or not self.reason:
            return ""
        return f"KVM cannot be used ({self.reason}): falling back to emulation, which is slow"


class _Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    boot: str
    uid: int
    kind: Kind
    reason: str


def find_accelerator(cache: Path, *, deadline: float = qemu.PROBE_DEADLINE) -> Accelerator:
    """Return the accelerator of this host, from the answer kept in the folder ``cache`` or by
    running the probe, which takes at most ``deadline`` seconds.

    Raises: MissingToolError when QEMU is not installed.
    """
    boot = boot_id()
    kept = cache / "accelerator.json"
    answer = _read(kept)
    if answer is not None and answer.boot == boot and answer.uid == os.getuid():
        return Accelerator(answer.kind, answer.reason)
    reason = _probe(deadline)
    found = Accelerator("tcg", reason) if reason else Accelerator("kvm")
    if "ermission" in reason:
        return found  # joining the group kvm cures that without a reboot
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    answer = _Answer(boot, os.getuid(), found.kind, found.reason)
    write_atomic(kept, msgspec.json.encode(answer), mode=0o600)
    return found


def boot_id() -> str:
    """Return what tells this boot of the host from all others."""
    return _BOOT_ID.read_text("ascii").strip()


def _probe(deadline: float) -> str:
    with tempfile.TemporaryDirectory(prefix="machine-probe-") as folder:
        disk = Path(folder) / "probe.img"
        disk.write_bytes(qemu.probe_disk())
        return qemu.probe("kvm", disk, deadline=deadline)


def _read(path: Path) -> _Answer | None:
    try:
        return decode_json(read_bounded(path, 1 << 16), _Answer, name=str(path))
    except MachineOSError:
        return None  # absent or damaged: it is a cache
