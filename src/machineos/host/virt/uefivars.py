"""Adapter for virt-fw-vars: UEFI variable stores of virtual machines, with our keys enrolled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from machineos.core.command import Command

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

PROGRAM = "virt-fw-vars"
_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A certificate (PEM file) and the GUID of its owner."""

    guid: UUID
    certificate: Path


def enroll_command(
    program: str, template: Path, target: Path, *, pk: Enrolled, kek: Enrolled, db: Enrolled
) -> Command:
    """Return the command that makes a store with these three keys, Secure Boot on, no others."""
    argv = [program, "--input", str(template), "--output", str(target)]
    for option, key in (("--set-pk", pk), ("--add-kek", kek), ("--add-db", db)):
        argv += [option, str(key.guid), str(key.certificate)]
    return Command((*argv, "--sb", "--no-microsoft"), _TIMEOUT)
