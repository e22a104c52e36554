"""From an image in the store to a mounted file system that the kernel checks block by block.

Shared by the initrd (hostfs, bootkit) and mosd (services). Invariant: a file system is mounted only
from a dm-verity device that was opened under the root hash of the verified image manifest, with a
signature that the kernel accepted; its superblock is never looked at by the kernel before.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from machineos.core.files import write_atomic
from machineos.errors import SignatureError, VerificationError
from machineos.host import dmverity, erofs, squashfs, verity
from machineos.host.mount import Flag, mount
from machineos.oci.atomfs import parse_layer_type, root_hash_of

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.oci.model import Descriptor

_HEADER = 8192


@dataclass(frozen=True, slots=True)
class ImageVolume:
    """The one layer of an image, ready to be opened: ``filesystem`` is squashfs or erofs."""

    volume: dmverity.Volume
    filesystem: str


def image_volume(
    blob: Path, layer: Descriptor, *, signatures: tuple[bytes, ...], folder: Path
) -> ImageVolume:
    """Return the volume of ``layer``, whose bytes are in the file ``blob``.

    ``signatures`` are the candidates of its root hash; the first is written into ``folder``, where
    the kernel's tool reads it. What the header says is only used to find the hash tree, which the
    root hash then vouches for.

    Raises: SignatureError (there is none), VerificationError.
    """
    what = f"layer {layer.digest}"
    kind = parse_layer_type(layer.media_type)
    if kind is None:
        raise VerificationError(f"{what}: {layer.media_type!r:.80} cannot be mounted")
    root_hash = root_hash_of(layer)
    if not signatures:
        raise SignatureError(
            f"{what}: nobody signed its root hash", hint="publish the image with mosb"
        )
    offset = verity.round_up(_data_size(blob, kind.filesystem, what))
    if offset + verity.BLOCK > layer.size:
        raise VerificationError(f"{what}: is cut off: no hash tree follows its file system")
    folder.mkdir(parents=True, exist_ok=True)
    signature = folder / f"{layer.digest.hex}.p7s"
    write_atomic(signature, signatures[0])
    name = f"{layer.digest.hex}-verity"
    return ImageVolume(dmverity.Volume(blob, name, root_hash, offset, signature), kind.filesystem)


def mount_image(image: ImageVolume, target: Path) -> None:
    """Open the volume and mount it read-only at ``target``, which must exist.

    Raises: SignatureError, VerificationError, ConflictError.
    """
    device = dmverity.open_volume(image.volume)
    mount(device, target, image.filesystem, Flag.RDONLY | Flag.NODEV | Flag.NOSUID)


def _data_size(blob: Path, filesystem: str, what: str) -> int:
    descriptor = os.open(blob, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        header = file.read(_HEADER)
    parse = squashfs.parse_size if filesystem == "squashfs" else erofs.parse_size
    return parse(header, what=what)
