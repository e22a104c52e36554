"""A real machine for the contract of the installer's host: loop devices, and a disk to spoil.

Uses nothing but the package and what lies beside it, so that it can be sent to a guest.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from contracts.install import MIB
from fakes.disk import LoopDisk
from machineos.core.clock import SystemClock
from machineos.core.digest import Digest
from machineos.core.run import run
from machineos.core.secret import Secret
from machineos.document.product.artifacts import ROOT_HASH_SIGNATURE
from machineos.errors import MachineOSError
from machineos.host.kernel import keyring
from machineos.install.host import LinuxHost
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.repository import Repository
from machineos.state.volumes.steps import Kind
from unit.oci.samples import put_artifact, put_image


class RealMachine:
    """This machine. ``disk`` may be spoiled; ``base`` is a folder for everything else. A power cut
    is one for the loop devices only."""

    def __init__(self, base: Path, *, esp: Kind, disk: Path) -> None:
        self.base = base
        self.esp: Kind = esp
        self._disk = disk
        self._loops: dict[str, LoopDisk] = {}
        self.host = self._boot()

    @property
    def disk(self) -> Path:
        """The disk, once nobody looks at it any more because it changed."""
        if Path("/run/udev/control").exists():
            run(["udevadm", "settle"], timeout=180)
        return self._disk

    def _boot(self) -> LinuxHost:
        return LinuxHost(SystemClock(), lambda _text: None)

    def work(self, name: str) -> Path:
        return self.base / "work" / name

    def device(self, name: str) -> Path:
        if name not in self._loops:
            self._loops[name] = LoopDisk(self.base / f"{name}.disk", size=64 * MIB)
        return self._loops[name].device

    def plain_file(self, name: str, data: bytes) -> Path:
        path = self.base / "plain" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        return path

    def staged(self, layers: Mapping[str, bytes]) -> tuple[Path, dict[str, Digest]]:
        layout = LayoutRepository(self.base / "staged", writable=True)
        images = {}
        for name, layer in layers.items():
            image = put_image(layout, name, (layer,))
            put_artifact(layout, image.root, f"signature of {name}".encode(), ROOT_HASH_SIGNATURE)
            images[name] = image.root.digest
        return layout.path, images

    def stored(self, layout: Path) -> Repository:
        return LayoutRepository(layout)

    def files(self, folder: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }

    def keep_key(self, name: str, key: Secret) -> None:
        keyring.add_secret(name, key)

    def power_cut(self) -> None:
        left = {name: loop.cut() for name, loop in self._loops.items()}
        self.close()
        self._loops = left
        self.host = self._boot()

    def damage(self, content: bytes) -> int:
        return sum(loop.damage(content) for loop in self._loops.values())

    def close(self) -> None:
        """Leave nothing mounted and nothing attached."""
        self.host.__exit__(None, None, None)
        for loop in self._loops.values():
            loop.close()
        self._loops.clear()


def has_keyring() -> bool:
    """Whether the key service of this kernel can be used from here."""
    name = f"machineos:probe-{os.getpid()}"
    try:
        keyring.add_secret(name, Secret(b"x"))
        keyring.revoke_secret(name)
    except MachineOSError:
        return False
    return True
