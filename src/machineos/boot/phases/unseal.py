"""Open what the TPM seals, by the signed policy that fits this boot, and read who this machine is.

The policy lies beside the initrd, where systemd-stub puts it out of the UKI.
"""

from __future__ import annotations

from pathlib import Path

from machineos.boot.facts import (
    ANCHORS,
    BOOTS,
    CERTIFICATE,
    DRIVERS,
    POLICIES,
    SEALED,
    Facts,
    Phase,
)
from machineos.boot.steps import OpenSealed, ReadFile, ReadSealed
from machineos.core.steps import Talk, ask
from machineos.errors import BootError, MissingError
from machineos.trust.measure.tpm_policy import parse_policies
from machineos.trust.seal.layout import Index

POLICY_FILE = Path("/.extra/tpm2-pcr-signature.json")
_LIMIT = 4 << 20


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        try:
            data = yield from ask(ReadFile(POLICY_FILE, _LIMIT))
        except MissingError as error:
            raise BootError("this boot image carries no signed TPM policy") from error
        policies = parse_policies(data)
        yield from ask(OpenSealed(policies, facts[ANCHORS].policy_key))
        certificate = yield from ask(ReadSealed(Index.SUDI_CERT))
        return Facts().plus(POLICIES, policies).plus(CERTIFICATE, certificate.reveal())


PHASE = _Phase(
    "unseal",
    modes=BOOTS,
    needs=frozenset({ANCHORS, DRIVERS}),
    gives=frozenset({POLICIES, CERTIFICATE, SEALED}),
)
