"""What a layer must be so that a machine can mount it: judged by a few bytes of it.

``tree_at`` says where in the layer the hash tree is, so that whoever reads it knows what to read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from machineos.document.rules.rule import Rule
from machineos.errors import VerificationError
from machineos.host.kernel.superblock import (
    BLOCK,
    data_size,
    parse_superblock,
    round_up,
    tree_size,
)
from machineos.oci.model.atomfs import Layer, layer_type_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from machineos.oci.model.documents import Descriptor

    Found = Iterator[tuple[str, str]]

_IT = "it"


class Seen(msgspec.Struct, frozen=True):
    """What was read of a layer: its first ``BLOCK`` bytes, and those at the hash tree.

    ``behind`` None says that nobody looked there: then only the file system is judged, and that
    there is room for its tree.
    """

    layer: Descriptor | Layer
    start: bytes
    behind: bytes | None = None


def layer_name(layer: Descriptor | Layer) -> str:
    """Return what messages call a layer."""
    return f"layer {layer.digest}"


def tree_at(seen: Seen) -> int:
    """Return where in the layer the superblock of the hash tree is, by its file system.

    Raises: VerificationError (it is no file system of its type).
    """
    kind = layer_type_of(seen.layer).filesystem
    return round_up(data_size(kind, seen.start, what=_IT))


def _mountable(seen: Seen) -> Found:
    try:
        offset = tree_at(seen)
        if offset + tree_size(offset // BLOCK) > seen.layer.size:
            yield "", "is cut off: no hash tree follows its file system"
        elif seen.behind is not None:
            parse_superblock(seen.behind, offset=offset, what=_IT)
    except VerificationError as error:
        # Whoever asks says which layer it is.
        yield "", error.message.removeprefix(f"{_IT}: ")


MOUNTABLE: Rule[Seen] = Rule(
    "layer-mountable",
    "A layer is the file system that its type names, with a dm-verity hash tree behind it.",
    ("publish", "verify", "install", "boot", "mosd"),
    _mountable,
    hint="build or convert the image with mosb",
)
