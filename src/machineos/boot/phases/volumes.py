"""Open every volume that the generation names, and the one for logs: after this boot's initrd
nobody can.

One that does not open stays closed, and its service without it; nothing is made anew in its place.
Which volumes there are root decides, and their headers may be root's: each is read in Python first,
and cryptsetup is given the copy that was (docs/adr/0030).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from machineos.boot.facts import (
    FIRST_DOOR,
    FRESH,
    GENERATION,
    RUN,
    RUNS,
    SCRATCH,
    SEALING_KEY,
    STORAGE_USED,
    UNSEALED,
    VOLUMES,
    Facts,
    Phase,
)
from machineos.boot.steps import (
    ForgetSecret,
    OpenLuks,
    ReadHeader,
    Say,
    WaitForStorage,
    WriteFile,
)
from machineos.core.steps import Talk, ask
from machineos.document.model.names import Label, Unfinished, opened_name
from machineos.errors import VerificationError
from machineos.state.volumes.sealed import open_token

if TYPE_CHECKING:
    from machineos.core.secret import Secret

GROUP = Path("/dev/machine-data")
LOG = Label("machine-log")
HEADER_COPY = RUN / "volume-header"


def found_names(labels: tuple[Label, ...], present: frozenset[str]) -> dict[Label, str]:
    """Return what the volume of each label is called, of those that are there. The first name of
    one counts as well: it may be whole, and cut off before it got its own."""
    found: dict[Label, str] = {}
    for label in labels:
        for name in (label, Unfinished.of(label)):
            if name in present:
                found.setdefault(label, name)
    return found


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        present = frozenset((yield from ask(WaitForStorage())))
        storage = (each.storage for each in facts[GENERATION].system.storage)
        labels = tuple(each.name for each in storage if each.persistent)
        for label, name in found_names((*labels, LOG), present).items():
            try:
                yield from _open(label, GROUP / name, facts[SEALING_KEY])
            except VerificationError as error:
                yield from ask(Say(f"volume {label} stays closed: {error.message}"))
            except OSError as error:
                yield from ask(Say(f"volume {label} stays closed: {error.strerror}"))
        return Facts()


def _open(label: Label, device: Path, private: Secret) -> Talk[None]:
    header = yield from ask(ReadHeader(device))
    secret = open_token(private, header, what=device.name)
    yield from ask(WriteFile(HEADER_COPY, header, mode=0o600))
    try:
        yield from ask(OpenLuks(device, opened_name(label), HEADER_COPY, secret))
    except VerificationError:
        yield from ask(ForgetSecret(secret))
        raise
    yield from ask(ForgetSecret(secret))


PHASE = _Phase(
    "volumes",
    modes=RUNS,
    needs=frozenset({SCRATCH, GENERATION, SEALING_KEY, STORAGE_USED, UNSEALED, FIRST_DOOR, FRESH}),
    gives=frozenset({VOLUMES}),
)
