"""Give the TPM its identity, keys and policies, and shut its door: what follows is power off."""

from __future__ import annotations

from machineos.boot.facts import (
    ANCHORS,
    DOOR_CLOSED,
    DRIVERS,
    IDENTITY,
    NEW_IDENTITY,
    PROVISIONED,
    PROVISIONS,
    SETTINGS,
    TPM_KIND,
    Facts,
    Phase,
)
from machineos.boot.steps import CloseDoor, ProvisionTpm, Say
from machineos.core.steps import Talk, ask


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        anchors, identity, given = facts[ANCHORS], facts[IDENTITY], facts[NEW_IDENTITY]
        yield from ask(
            ProvisionTpm(
                policy_key=anchors.policy_key,
                admin_policy_key=anchors.admin_policy_key,
                certificate=given.certificate,
                private_key=given.private_key,
                policy_version=facts[SETTINGS].policy_version,
            )
        )
        yield from ask(CloseDoor("first"))
        yield from ask(CloseDoor("second"))
        text = f"provisioned successfully: {identity.serial} of product {identity.product}"
        yield from ask(Say(text))
        return Facts()


PHASE = _Phase(
    "provision",
    modes=PROVISIONS,
    needs=frozenset({SETTINGS, ANCHORS, DRIVERS, IDENTITY, NEW_IDENTITY, TPM_KIND}),
    gives=frozenset({DOOR_CLOSED, PROVISIONED}),
)
