"""What the firmware of a machine holds when the keys of a keyset are enrolled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.trust.measure.pcr import Owned, SecureBootCerts
from machineos.trust.measure.secureboot import NO_OWNER

if TYPE_CHECKING:
    from machineos.trust.keys.keyset import Keyset


def certs_of(keyset: Keyset, role: str = "uki-production") -> tuple[SecureBootCerts, bytes]:
    """Return what a machine with this keyset enrolled has, and the UKI certificate of ``role``.

    Raises: MissingError, DocumentError, SignatureError.
    """

    def owned(name: str) -> Owned:
        pair = keyset.key(name)
        return Owned(pair.certificate_der(), pair.guid or NO_OWNER)

    certs = SecureBootCerts(owned("uefi-pk"), owned("uefi-kek"), owned("uefi-db"))
    return certs, keyset.key(role).certificate_der()
