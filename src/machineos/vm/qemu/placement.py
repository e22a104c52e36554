"""Which files a machine needs on the disk, and what must be true of them: decided, nothing done.

Invariant: what a guest can write lies in the machine's own folder or where machine.yaml put an
image of its own; an image that the definition only refers to is copied before it is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from machineos.errors import MachineError

if TYPE_CHECKING:
    from machineos.host.virt.qemuimg import Image
    from machineos.vm.model import Config, Disk, Machine
    from machineos.vm.paths import MachinePaths

# Debian 12 and 13 have both the same files; the 4M build is the one with room for our keys.
FIRMWARE_FOLDER = Path("/usr/share/OVMF")
_CODE = {True: "OVMF_CODE_4M.secboot.fd", False: "OVMF_CODE_4M.fd"}
_VARS = "OVMF_VARS_4M.fd"
_FLASH_SIZES = {2 << 20, 4 << 20}


@dataclass(frozen=True, slots=True)
class Firmware:
    """A pair of firmware images; ``variables`` holds no keys."""

    code: Path
    variables: Path


def host_firmware(*, secure_boot: bool, folder: Path = FIRMWARE_FOLDER) -> Firmware:
    """Return where the host's UEFI images should be."""
    return Firmware(folder / _CODE[secure_boot], folder / _VARS)


def require_keys(config: Config) -> None:
    """Refuse Secure Boot without variables that hold keys to go by. Raises: MachineError."""
    if config.secure_boot and not config.uefi_vars:
        raise MachineError(
            f"machine {config.name}: secure-boot needs uefi-vars: it holds the keys",
            hint="name a variable store with keys as uefi-vars, or set secure-boot to false",
        )


def needs_host_firmware(config: Config) -> bool:
    """Whether the definition does not name both images itself."""
    return not (config.uefi_code and config.uefi_vars)


def choose_firmware(config: Config, host: Firmware | None) -> Firmware:
    """Return the images to take: what the definition names, the rest from the host."""
    found = host or Firmware(Path(), Path())
    return Firmware(
        Path(config.uefi_code) if config.uefi_code else found.code,
        Path(config.uefi_vars) if config.uefi_vars else found.variables,
    )


def check_flash(firmware: Firmware, total: int) -> None:
    """Refuse two images that do not fill one flash: they are of different builds.

    ``total`` is the size of both in bytes. Raises: MachineError.
    """
    if total not in _FLASH_SIZES:
        raise MachineError(
            f"{firmware.code} and {firmware.variables} do not belong together: "
            f"{total} bytes fill no flash",
            hint="take code and variables of the same build: both 4M, or both 2M",
        )


def is_import(disk: Disk, paths: MachinePaths) -> bool:
    """Whether a disk is copied into the machine's folder: it has size 0, can be written and lies
    elsewhere."""
    if disk.size.bytes or disk.frozen or "/" not in disk.file:
        return False
    return Path(disk.file).parent != paths.state


def place_of(disk: Disk, paths: MachinePaths) -> Path:
    """Return the image that the guest uses for a disk."""
    return paths.state / Path(disk.file).name if is_import(disk, paths) else paths.disk(disk.file)


def localize(machine: Machine, paths: MachinePaths) -> Machine:
    """Return the machine with every imported disk pointing to its copy."""
    disks = tuple(
        msgspec.structs.replace(disk, file=str(place_of(disk, paths)))
        if is_import(disk, paths)
        else disk
        for disk in machine.config.disks
    )
    config = msgspec.structs.replace(machine.config, disks=disks)
    return msgspec.structs.replace(machine, config=config)


def check_import(source: Path, image: Image) -> None:
    """Refuse to copy an image that is only a difference. Raises: MachineError."""
    if image.backing:
        raise MachineError(f"{source} stands on another image and cannot be imported")


def is_opaque(disk: Disk) -> bool:
    """Whether there is nothing to check of an image: a CD in the raw format."""
    return disk.type == "cdrom" and disk.kind == "raw"


def check_size(disk: Disk, path: Path, image: Image) -> None:
    """Refuse an image of another size than machine.yaml says. Raises: MachineError."""
    if disk.size.bytes and image.size != disk.size.bytes:
        raise MachineError(
            f"the disk {path} has {image.size} bytes, machine.yaml says {disk.size.bytes}",
            hint="a disk is not resized: set the size that it has, or delete it",
        )
