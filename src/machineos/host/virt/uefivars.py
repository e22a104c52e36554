"""Adapter for virt-fw-vars: UEFI variable stores of virtual machines, with our keys enrolled."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.core import run
from machineos.core.files import write_atomic
from machineos.errors import MissingError, MissingToolError

if TYPE_CHECKING:
    from uuid import UUID

_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A certificate (PEM file) and the GUID of its owner."""

    guid: UUID
    certificate: Path


def argv_enroll(
    program: str, template: Path, target: Path, *, pk: Enrolled, kek: Enrolled, db: Enrolled
) -> list[str]:
    """Return the command that makes a store with these three keys, Secure Boot on, no others."""
    argv = [program, "--input", str(template), "--output", str(target)]
    for option, key in (("--set-pk", pk), ("--add-kek", kek), ("--add-db", db)):
        argv += [option, str(key.guid), str(key.certificate)]
    return [*argv, "--sb", "--no-microsoft"]


def find_program() -> str:
    """Return virt-fw-vars: the one installed beside our Python, else the system's.

    Raises: MissingToolError.
    """
    beside = Path(sys.executable).with_name("virt-fw-vars")
    if beside.is_file():
        return str(beside)
    found = run.find("virt-fw-vars")
    if found is None:
        raise MissingToolError(
            "virt-fw-vars is not installed", hint="it comes with the Python package virt-firmware"
        )
    return found


def enroll(template: Path, target: Path, *, pk: Enrolled, kek: Enrolled, db: Enrolled) -> None:
    """Make ``target`` from a firmware's empty variable store; it appears whole or not at all.

    Raises: MissingError, MissingToolError, ToolError.
    """
    if not template.is_file():
        raise MissingError(f"{template} is not a file", hint="it comes from Debian's package ovmf")
    program = find_program()
    with tempfile.TemporaryDirectory(prefix=".vars.", dir=target.parent) as folder:
        made = Path(folder, "vars.fd")
        run.run(argv_enroll(program, template, made, pk=pk, kek=kek, db=db), timeout=_TIMEOUT)
        write_atomic(target, made.read_bytes(), mode=0o600)
