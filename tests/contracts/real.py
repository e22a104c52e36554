"""Beds on the machine that this runs on. ``python -m contracts.real GROUP FOLDER`` runs one group:
in a mount namespace of its own, or in a guest, whose ``FOLDER`` has what the test sent there.

Prints the name of each contract that was kept, and ends with a trace at the first that was not.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from contracts.beds import KEY, Kind, Layer
from contracts.boot import FILES, MOUNTS
from contracts.trust import KERNELS
from machineos.boot.console import Console
from machineos.boot.drivers import Drivers
from machineos.boot.machine import Machine
from machineos.core.clock import SystemClock
from machineos.core.digest import Digest
from machineos.core.run import run
from machineos.core.secret import Secret
from machineos.document.between.bootsettings import Settings
from machineos.host.disk import blockdev, cryptsetup, luks
from machineos.host.kernel import keyring, loopdev
from machineos.host.kernel.flags import Flag
from machineos.host.kernel.mount import mounts
from machineos.host.kernel.securityfs import SECURITYFS
from machineos.host.tpm.transport import DeviceTransport, Transport
from machineos.oci.model import atomfs
from machineos.oci.model.documents import Descriptor
from machineos.state.volumes.config import write_record
from machineos.state.volumes.header import passphrase

NAMES = {"ro": Flag.RDONLY, "nosuid": Flag.NOSUID, "nodev": Flag.NODEV, "noexec": Flag.NOEXEC}
SETTINGS = Settings(
    mode="run",
    policy_version="0001",
    command_line="",
    kernel="",
    modules_volume="",
    epoch=0,
    modules=(),
)


class RealBed:
    """This machine, and a folder of it."""

    def __init__(
        self,
        folder: Path,
        *,
        sysfs: Path = blockdev.SYSFS,
        securityfs: Path = SECURITYFS,
        tpm: Callable[[], Transport] = DeviceTransport,
    ) -> None:
        self.folder = folder
        for name in ("console", "kmsg"):
            (folder / f".{name}").touch()
        clock = SystemClock()
        console = Console(folder / ".console", folder / ".kmsg", clock)
        drivers = Drivers(SETTINGS, folder, folder)
        self.host = Machine(console, drivers, clock, sysfs=sysfs, securityfs=securityfs, tpm=tpm)

    def plant(
        self, path: Path, data: bytes = b"", *, mode: int = 0o644, kind: Kind = "file"
    ) -> None:
        """Make a file, or what is in the place of one."""
        path.unlink(missing_ok=True)
        if kind == "link":
            path.symlink_to(data.decode())
        elif kind == "fifo":
            os.mkfifo(path)
        else:
            path.write_bytes(data)
            path.chmod(mode)

    def look(self, path: Path) -> tuple[bytes, int]:
        """Return content and mode."""
        return path.read_bytes() if path.is_file() else b"", path.stat().st_mode & 0o777

    def flags(self, target: Path) -> Flag | None:
        """Return the flags of what is mounted there."""
        found = [mount for mount in mounts() if mount.target == target]
        if not found:
            return None
        flags = Flag.NONE
        for option in found[-1].options:
            flags |= NAMES.get(option, Flag.NONE)
        return flags


class GuestBed(RealBed):
    """A booted appliance. ``given`` is the folder with what the test made: a layer with
    signatures, certificates, a policy."""

    def __init__(self, folder: Path, given: Path) -> None:
        super().__init__(folder)
        self._given = given
        self._about = json.loads((given / "about.json").read_text())

    def layer(self, which: Literal["good", "stranger", "changed"]) -> Layer:
        """Return the volume; a changed one has a byte of its tree flipped, and a name of its
        own."""
        source = self._given / "layer"
        data = bytearray(source.read_bytes())
        if which == "changed":
            data[self._about["tree"]] ^= 1
        digest = Digest.of(bytes(data))
        blob = self.folder / digest.hex
        blob.write_bytes(bytes(data))
        described = atomfs.Layer.of(
            Descriptor(
                media_type=self._about["media_type"],
                digest=digest,
                size=len(data),
                annotations=self._about["annotations"],
            )
        )
        signer = "stranger" if which == "stranger" else "good"
        return Layer(blob, described, (self._given / f"{signer}.p7s").read_bytes())

    def certificate(self, which: Literal["publisher", "stranger"]) -> bytes:
        """Return a certificate that the kernel's keys vouch for, or one that they do not."""
        return (self._given / f"{which}.der").read_bytes()

    def policy(self) -> bytes:
        """Return a policy that was signed with the right key."""
        return (self._given / "policy.p7s").read_bytes()

    def secret(self, description: str) -> bytes:
        """Return what root's keyring holds, and forget it."""
        found = keyring.read_secret(description)
        keyring.revoke_secret(description)
        return found.reveal()

    def device(self) -> Path:
        """Return a LUKS device as the installer makes it, with a file system in it."""
        image = self.folder / "luks"
        with image.open("wb") as file:
            file.truncate(48 << 20)
        descriptor = os.open(image, os.O_RDWR)
        self._loop = loopdev.attach(descriptor, read_only=False, label="contract")
        os.close(descriptor)
        volume = luks.LuksVolume(self._loop.path, "contract-new")
        opening = passphrase(Secret(KEY))
        cryptsetup.format_volume(volume, opening, uuid="0b0f8dd4-37d6-4b15-8b9e-3f1d8a1c7a11")
        write_record(Secret(KEY), self._loop.path)
        run(
            ["mkfs.ext4", "-q", cryptsetup.open_volume(volume, opening)],
            timeout=600,
        )
        cryptsetup.close_volume(volume.name)
        return self._loop.path


def main(group: str, folder: str, given: str = "") -> None:
    """Run a group of contracts, each in a folder of its own."""
    beds: dict[str, tuple[Callable[[Path], Any], tuple[Callable[[Any], None], ...]]] = {
        "files": (RealBed, FILES),
        "mounts": (RealBed, MOUNTS),
        "kernel": (lambda place: GuestBed(place, Path(given)), KERNELS),
    }
    make, contracts = beds[group]
    for number, contract in enumerate(contracts):
        place = Path(folder) / str(number)
        place.mkdir(parents=True)
        contract(make(place))
        sys.stdout.write(f"{contract.__name__}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
