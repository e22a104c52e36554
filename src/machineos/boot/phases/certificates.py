"""The kernel gets the certificates that it judges root hashes by.

The order is the chain: shim gave it the UKI certificate, that vouches for the manifest CA, the CA
vouches for each publisher (docs/trust, "In the kernel"). The kernel believes these certificates in
more than root hashes: policies and modules, too. So none of a publisher gets there before a policy
holds in which such a signature opens nothing but the execution of a file.
"""

from __future__ import annotations

from machineos.boot.facts import (
    ANCHORS,
    BOOTS,
    ENFORCING,
    FIRMWARE_KEYS,
    IMAGES,
    PUBLISHERS,
    TRUSTED,
    Facts,
    Phase,
)
from machineos.boot.steps import TrustCertificate
from machineos.core.steps import Talk, ask


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        yield from ask(TrustCertificate(facts[ANCHORS].manifest_ca_uki, "manifest CA"))
        publishers = facts[PUBLISHERS]
        for certificate in sorted(set(publishers)):
            yield from ask(TrustCertificate(certificate, "publisher"))
        return Facts()


PHASE = _Phase(
    "certificates",
    modes=BOOTS,
    needs=frozenset({ANCHORS, FIRMWARE_KEYS, PUBLISHERS, IMAGES, ENFORCING}),
    gives=frozenset({TRUSTED}),
)
