"""The part of ``steps`` that is about the volumes of services. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import msgspec

from machineos.boot.facts import FIRST_DOOR, GENERATION, UNSEALED
from machineos.core.steps import Step

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.core.secret import Secret


class BeginVolumes(msgspec.Struct, Step[None], frozen=True):
    """Begin to make the volumes of the group on ``device`` available, whose blocks are
    authenticated by ``key``, while the boot goes on; the key is overwritten when it was used."""

    after: ClassVar[frozenset[str]] = frozenset({UNSEALED, FIRST_DOOR})
    group: str
    device: Path
    key: Secret


class Shown(msgspec.Struct, frozen=True):
    """The volumes whose devices are there, and what went wrong with others, empty for nothing."""

    names: tuple[str, ...]
    complaint: str = ""


class ListVolumes(msgspec.Struct, Step[Shown], frozen=True):
    """Wait until they are, but not for ever."""

    after: ClassVar[frozenset[str]] = frozenset({UNSEALED, FIRST_DOOR})
    group: str


class OpenVolume(msgspec.Struct, Step[None], frozen=True):
    """Open the volume of a service under ``name``; ``uuid`` is that of its header."""

    after: ClassVar[frozenset[str]] = frozenset({UNSEALED, FIRST_DOOR, GENERATION})
    device: Path
    name: str
    uuid: str
    key: Secret
