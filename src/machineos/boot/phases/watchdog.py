"""Choose the watchdog that systemd feeds, by what it is and not by which came first.

A number says only whose module was loaded before. Only hardware counts: a watchdog of the kernel
does not outlive a kernel that hangs.
"""

from __future__ import annotations

from pathlib import Path

from machineos.boot.facts import BOOTS, DRIVERS, SCRATCH, WATCHDOG, Facts, Phase
from machineos.boot.steps import MakeFolder, ReadText, Say, WriteFile
from machineos.core.steps import Talk, ask

CLASS = Path("/sys/class/watchdog")
MOST = 4
# As their drivers call themselves, the best first: a card's, the chipset's, the firmware's.
IDENTITIES = ("i6300ESB timer", "iTCO_wdt", "SP5100 TCO timer", "wdat_wdt")
FOLDER = Path("/run/systemd/system.conf.d")
FILE = FOLDER / "20-watchdog.conf"


def choose(found: tuple[str, ...]) -> int | None:
    """Return the number of the watchdog to feed, of those with these identities (empty: none of
    that number); None where no known one is."""
    known = [identity for identity in IDENTITIES if identity in found]
    return found.index(known[0]) if known else None


class _Phase(Phase, frozen=True):
    def talk(self, _facts: Facts) -> Talk[Facts]:
        found = []
        for number in range(MOST):
            found.append((yield from ask(ReadText(CLASS / f"watchdog{number}/identity"))))
        chosen = choose(tuple(found))
        if chosen is not None:
            yield from ask(Say(f"the watchdog is {found[chosen]}"))
            for folder in (FOLDER.parent, FOLDER):
                yield from ask(MakeFolder(folder))
            text = f"[Manager]\nWatchdogDevice=/dev/watchdog{chosen}\n"
            yield from ask(WriteFile(FILE, text.encode()))
        return Facts()


PHASE = _Phase(
    "watchdog",
    modes=BOOTS,
    needs=frozenset({SCRATCH, DRIVERS}),
    gives=frozenset({WATCHDOG}),
)
