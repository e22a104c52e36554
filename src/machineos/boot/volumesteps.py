"""The part of ``steps`` that is about the volumes of services. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import msgspec

from machineos.boot.facts import FIRST_DOOR, GENERATION, UNSEALED
from machineos.core.steps import Step

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.core.secret import Secret


class OpenIntegrity(msgspec.Struct, Step[None], frozen=True):
    """Open a device whose blocks are authenticated by ``key``, under ``name``."""

    after: ClassVar[frozenset[str]] = frozenset({UNSEALED, FIRST_DOOR})
    device: Path
    name: str
    key: Secret


class BeginVolumes(msgspec.Struct, Step[None], frozen=True):
    """Begin to make the volumes of the group on ``device`` available, while the boot goes on."""

    after: ClassVar[frozenset[str]] = frozenset({UNSEALED, FIRST_DOOR})
    group: str
    device: Path


class ListVolumes(msgspec.Struct, Step["tuple[str, ...]"], frozen=True):
    """Wait until they are, and answer their names, none when they could not be."""

    after: ClassVar[frozenset[str]] = frozenset({UNSEALED, FIRST_DOOR})
    group: str


class OpenVolume(msgspec.Struct, Step[None], frozen=True):
    """Open the volume of a service under ``name``, by the header in the file ``header``."""

    after: ClassVar[frozenset[str]] = frozenset({UNSEALED, FIRST_DOOR, GENERATION})
    device: Path
    name: str
    header: Path
    passphrase: Secret
