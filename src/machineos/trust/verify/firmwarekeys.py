"""The keys that the kernel has from the firmware: ours, and nothing beside them.

Two of its keyrings are filled from what the machine's owner can write: ``.machine`` from shim's
list (MokList), which begins with the certificate inside shim, and ``.platform`` from the firmware's
db and from what ``.machine`` did not take. A key in either makes root hash signatures that
dm-verity accepts, and one in ``.machine`` also vouches for certificates (docs/adr/0027). Pure.

A description is what the certificate says of itself, so it tells who was let in and proves
nothing: a stranger's may say the same, and then it has taken the place of ours. What proves that
the only key is ours comes after: the kernel accepts the manifest CA by the one in ``.machine``, and
the policy by the one in ``.platform``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.errors import BootError, SignatureError

if TYPE_CHECKING:
    from collections.abc import Sequence

MACHINE = ".machine"
PLATFORM = ".platform"
_SHOWN = 160


def check_firmware_keys(machine: Sequence[str], platform: Sequence[str], cross: bytes) -> None:
    """Refuse any key but the UKI certificate in ``.machine``, and more or less than one in
    ``.platform``; both are given as the kernel's descriptions of their keys.

    ``cross`` (DER) is the certificate of the manifest CA that the UKI key issued: it names the one
    key that ``.machine`` may hold. Raises: BootError, SignatureError (``cross`` names none).
    """
    ours = issuing_key(cross)
    strangers = [each for each in machine if not each.endswith(f": {ours}")]
    if strangers or len(machine) != 1:
        raise BootError(_refusal(MACHINE, machine, strangers, "the UKI certificate in shim"))
    if len(platform) != 1:
        raise BootError(
            _refusal(PLATFORM, platform, platform, "the certificate in the firmware's db")
        )


def issuing_key(certificate: bytes) -> str:
    """Return the identifier of the key that issued a certificate (DER), in hexadecimal.

    Raises: SignatureError when it names none.
    """
    from cryptography import x509

    try:
        loaded = x509.load_der_x509_certificate(certificate)
        named = loaded.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    except (ValueError, x509.ExtensionNotFound) as error:
        raise SignatureError("the manifest CA's second certificate names no issuing key") from error
    if named.key_identifier is None:
        raise SignatureError("the manifest CA's second certificate names no issuing key")
    return named.key_identifier.hex()


def _refusal(keyring: str, held: Sequence[str], shown: Sequence[str], wanted: str) -> str:
    found = ", ".join(repr(each[:_SHOWN]) for each in shown) or "no other"
    if not held:
        return (
            f"the kernel has no key from the firmware in {keyring}, and {wanted} belongs there: "
            "Secure Boot is off, or the firmware's db or shim's list was emptied; switch it on"
        )
    keys = "1 key" if len(held) == 1 else f"{len(held)} keys"
    return (
        f"the kernel has {keys} from the firmware in {keyring}, not just {wanted}: "
        f"{found}; reset shim's list (MokList) and the firmware's db to what this product enrolled"
    )
