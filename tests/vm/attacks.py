"""What an attacker with the disk does: reading and writing the parts of a machine that is off."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from machineos.core.run import run
from machineos.host import qemuimg

if TYPE_CHECKING:
    from appliance import Bench

    from machineos.vm.model import Config

# How a boot of the machine ends: its own words, or those of firmware and shim.
VERDICT = (
    r"BOOT FAILED: [^\r\n]*|handing over to systemd|Access Denied|Security Violation|"
    r"Kernel panic[^\r\n]*|UEFI Interactive Shell|Start PXE|SBAT self-check failed"
)
RUNS = "handing over to systemd"
SLOTS = ("EFI/machineos-a/shimx64.efi", "EFI/BOOT/BOOTX64.EFI")
KERNELS = ("EFI/machineos-a/grubx64.efi", "EFI/BOOT/grubx64.efi")


@dataclass(frozen=True)
class Partition:
    """A part of a raw disk, in bytes."""

    disk: Path
    start: int
    size: int

    def read(self, offset: int, size: int) -> bytes:
        with self.disk.open("rb") as file:
            file.seek(self.start + offset)
            return file.read(size)

    def write(self, offset: int, data: bytes) -> None:
        assert 0 <= offset <= self.size - len(data)
        with self.disk.open("r+b") as file:
            file.seek(self.start + offset)
            file.write(data)

    def flip(self, offset: int, bit: int = 0) -> None:
        self.write(offset, bytes([self.read(offset, 1)[0] ^ (1 << bit)]))

    @property
    def fat(self) -> str:
        """The name of this partition for mtools."""
        return f"{self.disk}@@{self.start}"

    def get(self, name: str, folder: Path) -> Path:
        """Copy a file out of a FAT file system."""
        target = folder / name.replace("/", "-")
        run(["mcopy", "-n", "-i", self.fat, f"::/{name}", target], timeout=60)
        return target

    def put(self, source: Path, name: str) -> None:
        """Replace a file of a FAT file system."""
        run(["mcopy", "-o", "-i", self.fat, source, f"::/{name}"], timeout=60)

    @contextmanager
    def mounted(self, folder: Path):
        """Mount it, on this host, for the length of a block."""
        folder.mkdir(exist_ok=True)
        options = f"loop,offset={self.start},sizelimit={self.size}"
        run(["mount", "-o", options, self.disk, folder], timeout=60)
        try:
            yield folder
        finally:
            run(["umount", folder], timeout=60)


@dataclass(frozen=True)
class Victim:
    """A copy of the installed machine with its disk as a raw file."""

    bench: Bench
    name: str

    @property
    def disk(self) -> Path:
        return self.bench.store.paths(self.name).state / f"{self.name}.raw"

    def partition(self, label: str) -> Partition:
        table = json.loads(run(["sfdisk", "-J", self.disk], timeout=60).stdout)["partitiontable"]
        sector = table.get("sectorsize", 512)
        for entry in table["partitions"]:
            if entry["name"] == label:
                return Partition(self.disk, entry["start"] * sector, entry["size"] * sector)
        raise AssertionError(f"no partition {label}")

    def change(self, **changes: object) -> None:
        """Change the hardware: fields of its configuration."""
        machine = self.bench.store.load(self.name)
        config: Config = msgspec.structs.replace(machine.config, **changes)
        with self.bench.store.lock(self.name):
            self.bench.store.replace(msgspec.structs.replace(machine, config=config))


def make_victim(bench: Bench, name: str = "victim") -> Victim:
    """Copy the installed machine; its disk becomes raw, so that it can be edited here."""
    bench.clone(name)
    victim = Victim(bench, name)
    disk = bench.store.load(name).config.disks[0]
    source = victim.disk.with_suffix(".qcow2")
    qemuimg.convert(source, "qcow2", victim.disk, "raw")
    source.unlink()
    victim.change(disks=(msgspec.structs.replace(disk, file=victim.disk.name, format="raw"),))
    return victim


def verdict(guest, timeout: float = 150) -> str:
    """Wait until the boot is decided and return the words."""
    return guest.vm.wait_console(VERDICT, timeout)[0].strip()


def reason(words: str) -> str:
    """Return the reason of a BOOT FAILED line."""
    match = re.fullmatch(r"BOOT FAILED: (.*)", words)
    assert match is not None, words
    return match[1]
