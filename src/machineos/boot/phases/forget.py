"""Overwrite the keys that the TPM gave out, as soon as those have them who were meant to.

What dm-crypt or the keyring holds is the kernel's, and nobody reads it there.
"""

from __future__ import annotations

from machineos.boot.facts import (
    BOOTS,
    FORGOTTEN,
    KEY,
    KEYS_USED,
    STORAGE_KEY,
    VOLUME_KEYS,
    Facts,
    Phase,
)
from machineos.boot.steps import ForgetSecret
from machineos.core.steps import Talk, ask


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        for secret in (facts[KEY], facts[STORAGE_KEY]):
            yield from ask(ForgetSecret(secret))
        return Facts()


PHASE = _Phase(
    "forget",
    modes=BOOTS,
    needs=frozenset({KEY, STORAGE_KEY, KEYS_USED, VOLUME_KEYS}),
    gives=frozenset({FORGOTTEN}),
)
