"""The phases of an installation, in their order; what each does is in the module it comes from."""

from __future__ import annotations

from machineos.core.facts import Facts
from machineos.install import source, stage, write
from machineos.state.slots.steps import Slot

PHASES = (*source.PARTS, *stage.PARTS, *write.PARTS)


def given(wish: source.Wish, *, uuid: str, slot: Slot = write.FIRST_SLOT) -> Facts:
    """Return what is known before the first phase; ``uuid`` is for the configuration volume."""
    return Facts().plus(source.WISH, wish).plus(write.CONFIG_UUID, uuid).plus(write.SLOT, slot)
