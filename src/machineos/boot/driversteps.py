"""The part of ``steps`` that is about kernel modules. Pure."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from machineos.boot.facts import DRIVERS, FIRST_DOOR, UNSEALED
from machineos.core.steps import Step


class WaitForDrivers(msgspec.Struct, Step[None], frozen=True):
    """Wait until the modules of every boot and a first driver are there."""


class LoadDriver(msgspec.Struct, Step[bool], frozen=True):
    """Load one more driver that a device here wants; answer False when there is none."""

    after: ClassVar[frozenset[str]] = frozenset({DRIVERS})


class BeginModules(msgspec.Struct, Step[None], frozen=True):
    """Begin to load these modules, beside what takes long and asks nothing of the TPM; what goes
    wrong is told to who loads them."""

    after: ClassVar[frozenset[str]] = frozenset({DRIVERS, UNSEALED, FIRST_DOOR})
    names: tuple[str, ...]


class LoadModules(msgspec.Struct, Step[None], frozen=True):
    """Load these module files, in this order, but for those that are loaded already."""

    after: ClassVar[frozenset[str]] = frozenset({DRIVERS})
    names: tuple[str, ...]
