"""Runs the programs that the modules beside it describe, where a call takes more than one step."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.core.files import write_atomic
from machineos.core.run import find, perform
from machineos.errors import MissingError, MissingToolError, ToolTimeoutError
from machineos.host.virt import qemu, qemuimg, swtpm, uefivars

if TYPE_CHECKING:
    from machineos.host.virt.qemuimg import Format, Image
    from machineos.host.virt.uefivars import Enrolled


def probe(accelerator: str, disk: Path, *, deadline: float = qemu.PROBE_DEADLINE) -> str:
    """Run the probe's guest and return the empty string, or why the accelerator cannot be used.

    Raises: MissingToolError.
    """
    try:
        return qemu.parse_probe(perform(qemu.probe_command(accelerator, disk, deadline=deadline)))
    except ToolTimeoutError:
        return f"a guest of five instructions did not end within {deadline:g} s"


def convert_image(source: Path, source_kind: Format, target: Path, kind: Format) -> None:
    """Copy a disk image; the target appears only when it is whole. Raises: ToolError."""
    partial = target.with_name(f".{target.name}.partial")
    try:
        perform(qemuimg.convert_command(source, source_kind, partial, kind))
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def describe_image(path: Path, kind: Format) -> Image:
    """Describe a disk image.

    Raises: ToolError (also when it is not of this format), DocumentError.
    """
    return qemuimg.parse_info(perform(qemuimg.info_command(path, kind)).stdout, name=str(path))


def set_up_tpm(state: Path, log: Path) -> None:
    """Make a new TPM in ``state`` unless there is one already.

    Raises: MissingToolError, ToolError, ToolTimeoutError.
    """
    if (state / swtpm.STATE_FILE).exists():
        return
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A user in a container may have a number and no name.
    perform(swtpm.setup_command(state, log, str(os.getuid())))


def enroll(template: Path, target: Path, *, pk: Enrolled, kek: Enrolled, db: Enrolled) -> None:
    """Make ``target`` from a firmware's empty variable store; it appears whole or not at all.

    Raises: MissingError, MissingToolError, ToolError.
    """
    if not template.is_file():
        raise MissingError(f"{template} is not a file", hint="it comes from Debian's package ovmf")
    program = find_vars_program()
    with tempfile.TemporaryDirectory(prefix=".vars.", dir=target.parent) as folder:
        made = Path(folder, "vars.fd")
        perform(uefivars.enroll_command(program, template, made, pk=pk, kek=kek, db=db))
        write_atomic(target, made.read_bytes(), mode=0o600)


def find_vars_program(python: Path | None = None) -> str:
    """Return virt-fw-vars: the one beside our Python (``python``), where scripts/setup puts it, or
    else the system's, which Debian 13 has. Raises: MissingToolError."""
    beside = (python or Path(sys.executable)).with_name(uefivars.PROGRAM)
    if beside.is_file():
        return str(beside)
    found = find(uefivars.PROGRAM)
    if found is None:
        raise MissingToolError(
            f"{uefivars.PROGRAM} is not installed",
            hint="scripts/setup installs it; in Debian 13 it is in python3-virt-firmware",
        )
    return found
