"""Whether the publisher vouches for what is in a layer: the signature of its root hash.

Whether a signature is the publisher's is decided in ``trust.verify.roothash``; here it is required.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from machineos.document.rules.rule import Rule
from machineos.errors import SignatureError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from machineos.core.digest import Digest
    from machineos.oci.model.documents import Manifest


class Signed(msgspec.Struct, frozen=True):
    """An image and the publisher's signatures of its root hashes, by layer."""

    manifest: Manifest
    signatures: Mapping[Digest, bytes]


def _signed(image: Signed) -> Iterator[tuple[str, str]]:
    for layer in image.manifest.layers:
        if layer.digest not in image.signatures:
            yield "", f"nobody signed the root hash of layer {layer.digest}"


# The publisher signs while it publishes, so there it cannot be missing.
SIGNED: Rule[Signed] = Rule(
    "root-hash-signed",
    "The root hash of a layer is signed by who signed the manifest.",
    ("verify", "install", "boot"),
    _signed,
    SignatureError,
    "publish the manifest again with `mosb manifest publish`, which signs it",
)
