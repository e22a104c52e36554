"""The kernel takes over the chain: keyrings first, then the rule on what may be executed.

The order is the chain: shim gave the kernel the UKI certificate, that vouches for the manifest CA,
the CA vouches for each publisher. From here on code comes from the initrd or from a volume whose
root hash was signed by one of those publishers (docs/trust, "In the kernel").
"""

from __future__ import annotations

from machineos.boot.facts import (
    ANCHORS,
    BOOTS,
    ENFORCING,
    FIRMWARE_KEYS,
    IMAGES,
    PUBLISHERS,
    Facts,
    Phase,
)
from machineos.boot.steps import EnforcePolicy, Say, TrustCertificate
from machineos.core.steps import Talk, ask


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        yield from ask(TrustCertificate(facts[ANCHORS].manifest_ca_uki, "manifest CA"))
        publishers = facts[PUBLISHERS]
        for certificate in sorted(set(publishers)):
            yield from ask(TrustCertificate(certificate, "publisher"))
        yield from ask(EnforcePolicy(facts[ANCHORS].ipe_policy))
        yield from ask(Say("the kernel enforces: only signed volumes can be executed"))
        return Facts()


PHASE = _Phase(
    "enforce",
    modes=BOOTS,
    needs=frozenset({ANCHORS, FIRMWARE_KEYS, PUBLISHERS, IMAGES}),
    gives=frozenset({ENFORCING}),
)
