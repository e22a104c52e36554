"""The kernel takes over the chain: keyrings first, then the rule on what may be executed.

Invariant: after ``enforce`` returned, code comes from the initrd or from a volume whose root hash
was signed by a publisher that the product's manifest CA vouches for (docs/trust, "In the kernel").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.host.kernel import ipe, keyring

if TYPE_CHECKING:
    from collections.abc import Iterable

    from machineos.document.between.bootsettings import Anchors


def enforce(anchors: Anchors, publishers: Iterable[bytes]) -> None:
    """Trust the manifest CA, then the publishers (DER), then switch the policy on.

    The order is the chain: shim gave the kernel the UKI certificate, that vouches for the CA, the
    CA vouches for each publisher. Raises: SignatureError, BootError.
    """
    trusted = keyring.find_keyring(keyring.SECONDARY)
    keyring.add_certificate(trusted, anchors.manifest_ca_uki, what="manifest CA")
    for certificate in sorted(set(publishers)):
        keyring.add_certificate(trusted, certificate, what="publisher")
    ipe.enforce(anchors.ipe_policy)
