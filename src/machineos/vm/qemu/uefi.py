"""UEFI firmware of a machine: the code image, and its variables with our keys and no other's.

Invariant: a machine's variables are made once, at its first start, and never overwritten; code and
variables come from the same build of the firmware, which their sizes tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.core.files import atomic, read_bounded
from machineos.errors import MissingError
from machineos.host.virt import tools
from machineos.vm.qemu.placement import (
    FIRMWARE_FOLDER,
    Firmware,
    check_flash,
    choose_firmware,
    host_firmware,
    needs_host_firmware,
    require_keys,
)

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.vm.model import Config
    from machineos.vm.paths import MachinePaths
    from machineos.vm.provider import SecureBootKeys

_MAX_FLASH = 8 << 20


def find_firmware(*, secure_boot: bool, folder: Path = FIRMWARE_FOLDER) -> Firmware:
    """Return the host's UEFI images. Raises: MissingError."""
    found = host_firmware(secure_boot=secure_boot, folder=folder)
    for path in (found.code, found.variables):
        if not path.is_file():
            raise MissingError(f"{path} does not exist", hint="it comes with Debian's package ovmf")
    return found


def prepare_uefi(output: Path, keys: SecureBootKeys, *, template: Path | None = None) -> None:
    """Write a variable store for ``uefi-vars`` with these keys enrolled, no others, Secure Boot on.

    ``template`` is an empty store of the firmware's build, the host's when not given.
    Raises: MissingError, MissingToolError, ToolError.
    """
    for key in (keys.pk, keys.kek, keys.db):
        if not key.certificate.is_file():
            raise MissingError(f"{key.certificate} does not exist")
    source = template or find_firmware(secure_boot=True).variables
    tools.enroll(source, output, pk=keys.pk, kek=keys.kek, db=keys.db)


def place_firmware(config: Config, paths: MachinePaths) -> None:
    """Put code and variables into the machine's folder, unless they are there already.

    Raises: MissingError, MachineError, ToolError.
    """
    if paths.uefi_code.exists() and paths.uefi_nvram.exists():
        return
    require_keys(config)
    needed = needs_host_firmware(config)
    host = find_firmware(secure_boot=config.secure_boot) if needed else None
    firmware = choose_firmware(config, host)
    code = read_bounded(firmware.code.resolve(), _MAX_FLASH)
    variables = read_bounded(firmware.variables.resolve(), _MAX_FLASH)
    check_flash(firmware, len(code) + len(variables))
    if not paths.uefi_nvram.exists():
        tools.convert_image(firmware.variables, "raw", paths.uefi_nvram, "qcow2")
        paths.uefi_nvram.chmod(0o600)
    with atomic(paths.uefi_code, mode=0o600) as file:
        file.write(code)
