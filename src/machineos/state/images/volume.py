"""From an image in the store to a mounted file system that the kernel checks block by block.

Shared by the initrd (hostfs, bootkit) and mosd (services). Invariant: a file system is mounted only
from a dm-verity device that was opened under the root hash of the verified image manifest, with a
signature that the kernel accepted; its superblock is never looked at by the kernel before.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from machineos.core import files
from machineos.document.rules.layer import MOUNTABLE, Seen, layer_name, tree_at
from machineos.host.kernel import dmverity
from machineos.host.kernel.mount import Flag, mount
from machineos.host.kernel.superblock import BLOCK, Superblock, parse_superblock
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.atomfs import Layer, layer_type_of
from machineos.oci.model.documents import parse_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.core.digest import Digest


class ImageVolume(msgspec.Struct, frozen=True):
    """A layer of an image, ready to be opened: ``filesystem`` is squashfs or erofs."""

    volume: dmverity.Volume
    filesystem: str


def image_volume(blob: Path, layer: Layer, *, signature: bytes) -> ImageVolume:
    """Return the volume of ``layer``, whose bytes are in the file ``blob``.

    ``signature`` is that of its root hash (PKCS#7). What the headers in the file say is only used
    to find the hash tree, which the root hash then vouches for.

    Raises: VerificationError.
    """
    kind = layer_type_of(layer)
    superblock = _superblock(blob, layer)
    name = f"{layer.digest.hex}-verity"
    volume = dmverity.Volume(blob, name, layer.root_hash, superblock, signature)
    return ImageVolume(volume, kind.filesystem)


def mount_image(image: ImageVolume, target: Path) -> None:
    """Open the volume and mount it read-only at ``target``, which must exist.

    Raises: SignatureError, VerificationError, ConflictError.
    """
    device = dmverity.open_volume(image.volume)
    mount(device, target, image.filesystem, Flag.RDONLY | Flag.NODEV | Flag.NOSUID)


def mount_stored(source: Path, image: Digest, signature: bytes, folder: Path) -> None:
    """Mount the first layer of an image in the layout ``source`` at ``folder``, which is made.

    Raises: SignatureError, VerificationError, ConflictError, MissingError.
    """
    layout = LayoutRepository(source)
    descriptor, data = layout.manifest(str(image))
    manifest = parse_manifest(data, name=str(image), media_type=descriptor.media_type)
    layer = Layer.of(manifest.layers[0])
    volume = image_volume(layout.blob_path(layer.digest), layer, signature=signature)
    folder.mkdir(parents=True, exist_ok=True)
    mount_image(volume, folder)


def _superblock(blob: Path, layer: Layer) -> Superblock:
    """Read the superblock of the hash tree, which follows the file system.

    The store is a disk that anybody may have written to: what is no plain file is not waited for.
    """
    what = layer_name(layer)
    with os.fdopen(files.open_regular(blob), "rb") as file:
        seen = Seen(layer, file.read(BLOCK))
        MOUNTABLE.require(seen, what)
        offset = tree_at(seen)
        file.seek(offset)
        behind = file.read(BLOCK)
    MOUNTABLE.require(replace(seen, behind=behind), what)
    return parse_superblock(behind, offset=offset, what=what)
