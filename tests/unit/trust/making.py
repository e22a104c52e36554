"""Keysets, projects and machines for tests, with keys that are made once per run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from fakes.randomness import FixedRandomness
from machineos.core.secret import Secret
from machineos.trust.keys.keyset import (
    Keyset,
    Project,
    Sudi,
    add_project,
    add_sudi,
    create_keyset,
)
from vectors.clock import FixedClock

CLOCK = FixedClock()


def create(
    root: Path,
    name: str = "k",
    organization: str | tuple[str, ...] = "A",
    *,
    passphrase: Secret | None = None,
    progress: Callable[[str], None] | None = None,
) -> Keyset:
    return create_keyset(
        root,
        name,
        organization=organization,
        passphrase=passphrase,
        clock=CLOCK,
        random=FixedRandomness(),
        progress=progress,
    )


def project_of(
    keyset: Keyset, name: str, *, uuid: UUID | None = None, passphrase: Secret | None = None
) -> Project:
    random = FixedRandomness(f"project {name}")
    return add_project(keyset, name, clock=CLOCK, random=random, passphrase=passphrase, uuid=uuid)


def sudi_of(
    project: Project, serial: str | None = None, *, passphrase: Secret | None = None
) -> Sudi:
    random = FixedRandomness(f"sudi {serial}")
    return add_sudi(project, serial, clock=CLOCK, random=random, passphrase=passphrase)
