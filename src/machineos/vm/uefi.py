"""UEFI firmware of a machine: the code image, and its variables with our keys and no other's.

Invariant: a machine's variables are made once, at its first start, and never overwritten; code and
variables come from the same build of the firmware, which their sizes tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.core.files import atomic, read_bounded
from machineos.errors import MachineError, MissingError
from machineos.host.virt import qemuimg, uefivars

if TYPE_CHECKING:
    from machineos.host.virt.uefivars import Enrolled
    from machineos.vm.model import Config
    from machineos.vm.store import MachinePaths

# Debian 12 and 13 have both the same files; the 4M build is the one with room for our keys.
FIRMWARE_FOLDER = Path("/usr/share/OVMF")
_CODE = {True: "OVMF_CODE_4M.secboot.fd", False: "OVMF_CODE_4M.fd"}
_VARS = "OVMF_VARS_4M.fd"
_FLASH_SIZES = {2 << 20, 4 << 20}
_MAX_FLASH = 8 << 20


@dataclass(frozen=True, slots=True)
class Firmware:
    """A pair of firmware images; ``variables`` holds no keys."""

    code: Path
    variables: Path


def find_firmware(*, secure_boot: bool, folder: Path = FIRMWARE_FOLDER) -> Firmware:
    """Return the host's UEFI images. Raises: MissingError."""
    found = Firmware(folder / _CODE[secure_boot], folder / _VARS)
    for path in (found.code, found.variables):
        if not path.is_file():
            raise MissingError(f"{path} does not exist", hint="it comes with Debian's package ovmf")
    return found


def prepare_uefi(
    output: Path,
    *,
    pk: Enrolled,
    kek: Enrolled,
    db: Enrolled,
    template: Path | None = None,
) -> None:
    """Write a variable store for ``uefi-vars`` with these keys enrolled, no others, Secure Boot on.

    ``template`` is an empty store of the firmware's build, the host's when not given.
    Raises: MissingError, MissingToolError, ToolError.
    """
    for key in (pk, kek, db):
        if not key.certificate.is_file():
            raise MissingError(f"{key.certificate} does not exist")
    source = template or find_firmware(secure_boot=True).variables
    uefivars.enroll(source, output, pk=pk, kek=kek, db=db)


def place_firmware(config: Config, paths: MachinePaths) -> None:
    """Put code and variables into the machine's folder, unless they are there already.

    Raises: MissingError, MachineError, ToolError.
    """
    if paths.uefi_code.exists() and paths.uefi_nvram.exists():
        return
    given = (config.uefi_code, config.uefi_vars)
    if config.secure_boot and not config.uefi_vars:
        raise MachineError(
            f"machine {config.name}: secure-boot needs uefi-vars: it holds the keys",
            hint="name a variable store with keys as uefi-vars, or set secure-boot to false",
        )
    code, variables = (Path(path) for path in given)
    if not all(given):
        host = find_firmware(secure_boot=config.secure_boot)
        code = code if config.uefi_code else host.code
        variables = variables if config.uefi_vars else host.variables
    contents = (
        read_bounded(code.resolve(), _MAX_FLASH),
        read_bounded(variables.resolve(), _MAX_FLASH),
    )
    total = sum(len(content) for content in contents)
    if total not in _FLASH_SIZES:
        raise MachineError(
            f"{code} and {variables} do not belong together: {total} bytes fill no flash",
            hint="take code and variables of the same build: both 4M, or both 2M",
        )
    if not paths.uefi_nvram.exists():
        qemuimg.convert(variables, "raw", paths.uefi_nvram, "qcow2")
        paths.uefi_nvram.chmod(0o600)
    with atomic(paths.uefi_code, mode=0o600) as file:
        file.write(contents[0])
