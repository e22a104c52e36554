"""Keys and identifiers for tests: made once per run, since making RSA keys is slow."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING
from uuid import UUID

from vectors.certificates import key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    from machineos.trust.keys.x509 import Profile


class FixedRandomness:
    """All different from one object; the same from each object of the same ``label``."""

    def __init__(self, label: str = "fixed") -> None:
        self._label = label
        self._count = 0

    def key(self, profile: Profile) -> RSAPrivateKey:
        return key(self._next(), profile.bits)

    def uuid(self) -> UUID:
        return UUID(bytes=hashlib.sha256(self._next().encode()).digest()[:16], version=4)

    def _next(self) -> str:
        self._count += 1
        return f"{self._label} {self._count}"
