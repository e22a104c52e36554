"""The layers that are mounted, not unpacked: squashfs or EROFS with appended dm-verity data.

Owns the names on the wire: media types and the annotation with the verity root hash, of both
generations of stacker and atomfs (docs/formats). Pure, because the initrd uses it. Invariant: a
root hash that comes out of here is 64 lower-case hex digits, not all zero, and no annotation of the
descriptor says otherwise; there is no way to ask for a layer without one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import msgspec

from machineos.core.digest import Digest
from machineos.core.word import RootHash
from machineos.errors import VerificationError

if TYPE_CHECKING:
    from machineos.oci.model.documents import Descriptor

FilesystemKind = Literal["squashfs", "erofs"]

OLD_ROOT_HASH = "io.stackeroci.stacker.squashfs_verity_root_hash"
NEW_ROOT_HASH = "io.stackeroci.stacker.atomfs_verity_root_hash"

_PREFIX = "application/vnd.stacker.image.layer."
_SHAPE = re.compile(r"(squashfs|erofs)(?:\+(gzip|zstd|xz|lzo|lz4hc|lz4|lzma))?(?:\+verity)?")


class LayerType(msgspec.Struct, frozen=True):
    """What a media type says: file system and compression (may be empty).

    Whether it says ``+verity`` means nothing: the newer generation leaves it out though the data is
    there, so only the annotation and the bytes count.
    """

    filesystem: FilesystemKind
    compression: str


class Layer(msgspec.Struct, frozen=True):
    """A layer to be mounted: what its descriptor says that matters for that, and nothing else.

    So it can stand in a plan: a descriptor holds tables that anybody could change.
    """

    digest: Digest
    size: int
    media_type: str
    root_hash: RootHash

    @classmethod
    def of(cls, descriptor: Descriptor) -> Layer:
        """Return the layer of a descriptor. Raises: VerificationError (see ``root_hash_of``)."""
        root_hash = root_hash_of(descriptor)
        return cls(descriptor.digest, descriptor.size, descriptor.media_type, root_hash)


def layer_media_type(filesystem: FilesystemKind, compression: str) -> str:
    """Return the media type that we write: each family as the predecessor's readers know it."""
    suffix = "+verity" if filesystem == "squashfs" else ""
    return f"{_PREFIX}{filesystem}+{compression}{suffix}"


def parse_layer_type(media_type: str) -> LayerType | None:
    """Return what ``media_type`` says, None if it is not one of a mountable layer."""
    if not media_type.startswith(_PREFIX):
        return None
    match = _SHAPE.fullmatch(media_type.removeprefix(_PREFIX))
    if match is None:
        return None
    kind: FilesystemKind = "erofs" if match[1] == "erofs" else "squashfs"
    return LayerType(kind, match[2] or "")


def layer_type_of(descriptor: Descriptor | Layer) -> LayerType:
    """Return what the media type of a layer says. Raises: VerificationError, if it cannot mount."""
    found = parse_layer_type(descriptor.media_type)
    if found is None:
        raise VerificationError(
            f"layer {descriptor.digest}: is {descriptor.media_type!r:.80}, "
            "not squashfs or EROFS with dm-verity"
        )
    return found


def root_hash_annotations(root_hash: RootHash) -> dict[str, str]:
    """Return the annotations under both names, for readers of both generations."""
    return {OLD_ROOT_HASH: str(root_hash), NEW_ROOT_HASH: str(root_hash)}


def root_hash_of(descriptor: Descriptor) -> RootHash:
    """Return the verity root hash of a layer.

    Raises: VerificationError when it is missing, malformed, all zero, or given twice and different.
    """
    what = f"layer {descriptor.digest}"
    names = (OLD_ROOT_HASH, NEW_ROOT_HASH)
    found = {descriptor.annotations[name] for name in names if name in descriptor.annotations}
    if not found:
        raise VerificationError(
            f"{what}: carries no verity root hash",
            hint="build or convert the image with mosb: the kernel must be able to check it",
        )
    if len(found) > 1:
        raise VerificationError(f"{what}: its two root hash annotations differ")
    value = found.pop()
    if RootHash.problem(value):
        raise VerificationError(f"{what}: {value[:80]!r} is not {RootHash.WHAT}")
    return RootHash(value)
