"""Layers as dm-verity devices whose root hash somebody signed whom the kernel trusts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.core.files import read_bounded
from machineos.host.kernel import dmverity
from machineos.state.images.volume import image_volume

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.core.digest import Digest
    from machineos.oci.model.atomfs import Layer

_MAX_SIGNATURE = 64 << 10


class VerityLayers:
    """The real thing; there is no way here to open a layer without a signature."""

    def open(self, layer: Layer, *, blob: Path, signature: Path) -> Path:
        """Return the device of ``layer``. Raises: VerificationError, ConflictError, ToolError."""
        pkcs7 = read_bounded(signature, _MAX_SIGNATURE)
        return dmverity.open_volume(image_volume(blob, layer, signature=pkcs7).volume)

    def close(self, digest: Digest) -> None:
        """Close the device of a layer; one that is not open is no error.

        Raises: ToolError (in use).
        """
        dmverity.close_volume(f"{digest.hex}-verity")
