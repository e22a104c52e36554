"""Open what the TPM seals, by the signed policy that fits this boot, and read its keys.

They are all that is sealed for the first phase of a boot; what is read next is behind the first
door. The policies lie beside the initrd, where systemd-stub puts them out of the UKI.
"""

from __future__ import annotations

from pathlib import Path

from machineos.boot.facts import (
    ANCHORS,
    BOOTS,
    DRIVERS,
    ENFORCING,
    FIRMWARE_KEYS,
    KEY,
    SEALED,
    STORAGE_KEY,
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
        key = yield from ask(ReadSealed(Index.CONFIGURATION_KEY))
        storage_key = yield from ask(ReadSealed(Index.STORAGE_KEY))
        return Facts().plus(KEY, key).plus(STORAGE_KEY, storage_key)


PHASE = _Phase(
    "unseal",
    modes=BOOTS,
    needs=frozenset({ANCHORS, DRIVERS, FIRMWARE_KEYS, ENFORCING}),
    gives=frozenset({SEALED, KEY, STORAGE_KEY}),
)
