"""The kernel may have no key from the firmware but ours, before any is made to vouch for more.

Whoever sits at the machine can enrol one in shim (MOK): the TPM's policy says no to that by PCR 14,
and this says it a second time, by what the kernel really holds.
"""

from __future__ import annotations

from machineos.boot.facts import ANCHORS, BOOTS, FIRMWARE_KEYS, Facts, Phase
from machineos.boot.steps import ListKeys
from machineos.core.steps import Talk, ask
from machineos.trust.verify.firmwarekeys import MACHINE, PLATFORM, check_firmware_keys


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        machine = yield from ask(ListKeys(MACHINE))
        platform = yield from ask(ListKeys(PLATFORM))
        check_firmware_keys(machine, platform, facts[ANCHORS].manifest_ca_uki)
        return Facts()


PHASE = _Phase(
    "keyrings",
    modes=BOOTS,
    needs=frozenset({ANCHORS}),
    gives=frozenset({FIRMWARE_KEYS}),
)
