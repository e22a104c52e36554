"""The last act before systemd: nothing of the initrd can be executed any more, by nobody.

The first root stays mounted, writable and reachable for root, below the one that takes its place
(kernel docs, LSM/ipe: "boot_verified"). So the policy that trusted it is replaced by one that does
not, and the ways by which running code could be given other code are shut for good. This process
goes on: it is there already. It must import nothing from here on.
"""

from __future__ import annotations

from machineos.boot.facts import (
    ANCHORS,
    BOOTS,
    DEPARTURE,
    DOOR_CLOSED,
    ENFORCING,
    FRESH,
    LOCKED,
    ROOT,
    WATCHDOG,
    Facts,
    Phase,
)
from machineos.boot.steps import ReplacePolicy, SetSysctl
from machineos.core.steps import Talk, ask

# Nobody attaches to a process, starts another kernel, or executes what has no file. The first two
# cannot be undone (kernel docs, LSM/Yama and sysctl/kernel).
SYSCTLS = (
    ("kernel/yama/ptrace_scope", "3"),
    ("kernel/kexec_load_disabled", "1"),
    ("vm/memfd_noexec", "2"),
)


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        for name, value in SYSCTLS:
            yield from ask(SetSysctl(name, value))
        yield from ask(ReplacePolicy(facts[ANCHORS].ipe_closed))
        return Facts()


PHASE = _Phase(
    "lock",
    modes=BOOTS,
    needs=frozenset({ANCHORS, DEPARTURE, FRESH, ROOT, ENFORCING, DOOR_CLOSED, WATCHDOG}),
    gives=frozenset({LOCKED}),
)
