"""What follows from the storage volume key, each for one purpose (HKDF-Expand, RFC 5869).

The key of dm-integrity is shown to root by the kernel's device-mapper table. The private key that
volumes are sealed to opens every one of them, and exists in the initrd only. So neither may lead to
the other, nor to the key that both come from. Shared with the initrd.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from machineos.core.secret import Secret
from machineos.trust.wrap.hpke import derive_private

if TYPE_CHECKING:
    from typing import Final

_INTEGRITY: Final = b"machineos storage-integrity\x01"
_SEALING: Final = b"machineos storage-sealing\x01"


def integrity_key(storage_key: Secret) -> Secret:
    """Return the key (32 bytes) of the HMAC over each sector below the volume group."""
    return Secret(hmac.digest(storage_key.view(), _INTEGRITY, hashlib.sha256))


def sealing_key(storage_key: Secret) -> Secret:
    """Return the private key (X25519, 32 bytes) to whose public key volumes are sealed."""
    material = Secret(hmac.digest(storage_key.view(), _SEALING, hashlib.sha256))
    private = derive_private(material)
    material.wipe()
    return private
