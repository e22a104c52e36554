"""Shut the first door, and see whether it is shut: from here on the TPM gives out no key.

What follows parses what an attacker may have written: the header of a disk, file systems, an
install medium. Whatever takes the boot over there, it finds the keys that this boot has in memory
and cannot ask for any.
"""

from __future__ import annotations

from machineos.boot.facts import BOOTS, DRIVERS, FIRST_DOOR, KEY, SEALED, STORAGE_KEY, Facts, Phase
from machineos.boot.steps import CloseDoor, ReadSealed, Say
from machineos.core.steps import Talk, ask
from machineos.errors import BootError, MachineOSError
from machineos.trust.seal.layout import Index


def check_shut(index: Index, door: str) -> Talk[None]:
    """Ask for what must not come any more, in the session that it came by before."""
    try:
        yield from ask(ReadSealed(index))
    except MachineOSError:
        return
    raise BootError(f"the TPM still gives out its secrets after its {door} door was closed")


class _Phase(Phase, frozen=True):
    def talk(self, _facts: Facts) -> Talk[Facts]:
        yield from ask(CloseDoor("first"))
        yield from check_shut(Index.CONFIGURATION_KEY, "first")
        yield from check_shut(Index.STORAGE_KEY, "first")
        yield from ask(Say("the TPM gives out no key any more"))
        return Facts()


PHASE = _Phase(
    "first door",
    modes=BOOTS,
    needs=frozenset({DRIVERS, SEALED, KEY, STORAGE_KEY}),
    gives=frozenset({FIRST_DOOR}),
)
