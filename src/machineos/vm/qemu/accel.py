"""Which accelerator this host has: found by running a guest, kept until the host boots again."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from machineos.core.files import read_bounded, write_atomic
from machineos.errors import MachineOSError
from machineos.host.virt import qemu, tools
from machineos.vm.qemu.accelerator import Accelerator, probed, remembered, to_remember
from machineos.vm.qemu.process import boot_id

_LIMIT = 1 << 16


def find_accelerator(cache: Path, *, deadline: float = qemu.PROBE_DEADLINE) -> Accelerator:
    """Return the accelerator of this host, from the answer kept in the folder ``cache`` or by
    running the probe, which takes at most ``deadline`` seconds.

    Raises: MissingToolError when QEMU is not installed.
    """
    boot, uid, kept = boot_id(), os.getuid(), cache / "accelerator.json"
    answer = remembered(_read(kept), boot=boot, uid=uid, name=str(kept))
    if answer is not None:
        return answer
    found = probed(_probe(deadline))
    if found.lasting:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(kept, to_remember(found, boot=boot, uid=uid), mode=0o600)
    return found


def _probe(deadline: float) -> str:
    with tempfile.TemporaryDirectory(prefix="machine-probe-") as folder:
        disk = Path(folder) / "probe.img"
        disk.write_bytes(qemu.probe_disk())
        return tools.probe("kvm", disk, deadline=deadline)


def _read(path: Path) -> bytes:
    try:
        return read_bounded(path, _LIMIT)
    except MachineOSError:
        return b""  # absent or damaged: it is a cache
