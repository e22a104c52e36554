"""Bytes that look like a layer to all but the kernel: a file system's head, a note, a hash tree's.

The head is that of a squashfs and of an EROFS at once, so one helper is enough for both types.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from machineos.build.recipe.use import Use
from machineos.core.digest import Digest
from machineos.document.verify.layers import require_seen, see
from machineos.host.kernel.superblock import BLOCK, EROFS_HEADER, VERITY, round_up, tree_size
from machineos.oci.model.documents import Descriptor, Manifest
from machineos.oci.model.repository import Repository


def layer_content(note: bytes) -> bytes:
    """Return the bytes of a layer in which ``note``, without a zero byte, stands for all files."""
    blocks = round_up(EROFS_HEADER + len(note)) // BLOCK
    return head_of(blocks) + note.ljust(blocks * BLOCK - EROFS_HEADER, b"\0") + tree_of(blocks)


def head_of(blocks: int) -> bytes:
    """Return the first ``EROFS_HEADER`` bytes of a file system of that many blocks."""
    data = bytearray(EROFS_HEADER)
    data[:4] = b"hsqs"
    struct.pack_into("<HH", data, 28, 4, 0)
    struct.pack_into("<Q", data, 40, blocks * BLOCK)
    struct.pack_into("<I", data, 1024, 0xE0F5E1E2)
    data[1024 + 12] = 12
    struct.pack_into("<I", data, 1024 + 36, blocks)
    return bytes(data)


def tree_of(blocks: int) -> bytes:
    """Return a hash tree over that many blocks of which only the superblock is right."""
    superblock = VERITY.pack(
        b"verity", 1, 1, bytes(16), b"sha256", BLOCK, BLOCK, blocks, 32, bytes(256)
    )
    return superblock.ljust(tree_size(blocks), b"\0")


def note_of(data: bytes) -> bytes:
    """Return the note in such a layer, nothing of any other bytes."""
    return data[EROFS_HEADER:].split(b"\0", 1)[0]


class AnyLayer:
    """An inspector of such layers, into which nobody can look; it knows what it was asked for."""

    def __init__(self) -> None:
        self.known: set[tuple[Digest, Use]] = set()

    def packed(self, manifest: Manifest) -> bool:
        """Nothing is packed again."""
        return bool(manifest.layers)

    def inspect(self, repository: Repository, manifest: Manifest, use: Use) -> None:
        """Look at no layer: what is near was looked at."""
        self.known.update((layer.digest, use) for layer in manifest.layers)

    def inspect_layer(self, repository: Repository, layer: Descriptor, uses: Sequence[Use]) -> None:
        """Look at one layer."""
        with repository.open_blob(layer) as chunks:
            self.look(layer, chunks, uses)

    def look(
        self,
        layer: Descriptor,
        chunks: Iterator[bytes],
        uses: Sequence[Use],
    ) -> None:
        """The same of a layer that is being read: its head and that of its tree."""
        require_seen(see(layer, chunks, tree=True), uses[0].what)
        self.known.update((layer.digest, use) for use in uses)
