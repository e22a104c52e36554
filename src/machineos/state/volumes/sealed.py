"""Volumes that are sealed for their machine: made by anybody, opened by its initrd only.

What opens a volume is 32 random bytes. They are wrapped to the public key of the machine (RFC 9180)
and lie in a token of the volume's own LUKS2 header, bound to its uuid; in the clear they exist
while the volume is made. Touches nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from machineos.errors import VerificationError
from machineos.host.disk.luks2 import parse_header
from machineos.trust.wrap.hpke import open_sealed, seal

if TYPE_CHECKING:
    from collections.abc import Callable

    from machineos.core.secret import Secret

TOKEN = "machineos-sealed"  # noqa: S105 (the type of a LUKS2 token)
SECRET_SIZE = 32
PUBLIC_KEY_FILE = "storage.pub"  # in /config: 32 bytes
INTEGRITY = "machine-data-integrity"  # the name of the device below the volume group
_INFO = b"machineos volume 1"


def make_token(
    public: bytes, secret: Secret, *, uuid: str, random: Callable[[int], bytes]
) -> bytes:
    """Return the token (JSON) for the volume ``uuid``. Raises: VerificationError (no key)."""
    sealed = seal(public, secret, info=_INFO, aad=uuid.encode(), random=random)
    return msgspec.json.encode({"type": TOKEN, "keyslots": ["0"], "sealed": sealed.hex()})


def open_token(private: Secret, header: bytes, *, what: str) -> Secret:
    """Return what opens the volume with this header.

    Raises: VerificationError (it is of another shape, or sealed for another machine or volume).
    """
    try:
        found = parse_header(header)
        sealed = bytes.fromhex(found.token(TOKEN)["sealed"])
        return open_sealed(private, sealed, info=_INFO, aad=found.uuid.encode())
    except VerificationError as error:
        raise VerificationError(f"{what}: {error.message}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise VerificationError(f"{what}: its token {TOKEN} is damaged") from error
