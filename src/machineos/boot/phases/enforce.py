"""The kernel takes over the chain: from here on it judges what is executed.

Before anything of a disk is looked at, and before it knows any publisher: code is that of the
initrd until the last phase (``lock``) gives this right away. Profiles of AppArmor, which nobody can
load later, go first.
"""

from __future__ import annotations

from machineos.boot.facts import ANCHORS, BOOTS, ENFORCING, FIRMWARE_KEYS, Facts, Phase
from machineos.boot.steps import EnforcePolicy, LoadProfiles, Say
from machineos.core.steps import Talk, ask


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        anchors = facts[ANCHORS]
        if anchors.apparmor:
            yield from ask(LoadProfiles(anchors.apparmor))
        yield from ask(EnforcePolicy(anchors.ipe_boot))
        yield from ask(Say("the kernel enforces: only signed code can be executed"))
        return Facts()


PHASE = _Phase(
    "enforce",
    modes=BOOTS,
    needs=frozenset({ANCHORS, FIRMWARE_KEYS}),
    gives=frozenset({ENFORCING}),
)
