"""Looking at the layers of an image in a repository, as far as that is cheap.

Invariant: no more is read than what is asked for; a layer is only then known to be whole when
somebody read it to its end.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from machineos.document.rules.layer import MOUNTABLE, Seen, layer_name, tree_at
from machineos.host.kernel.superblock import BLOCK
from machineos.oci.model.repository import Ranges

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from machineos.oci.model.documents import Descriptor, Manifest
    from machineos.oci.model.repository import Repository


def require_mountable(repository: Repository, manifest: Manifest, name: str, *, tree: bool) -> None:
    """Raise VerificationError unless a machine can mount each layer of an image that was checked.

    The head of a layer says whether it is a file system and has room for a hash tree. ``tree``
    looks at the head of the tree too: in a repository without ``Ranges`` the file system before it
    is read and hashed for that. That every block has the root hash is seen by the kernel alone.

    Raises: also MissingError, TransferError, DigestError (the layer is damaged, as far as read).
    """
    for layer in manifest.layers:
        require_seen(_look(repository, layer, tree=tree), name)


def require_seen(seen: Seen, name: str) -> None:
    """Raise VerificationError unless a machine can mount a layer of the image ``name``."""
    MOUNTABLE.require(seen, f"{name}: {layer_name(seen.layer)}")


def see(layer: Descriptor, chunks: Iterator[bytes], *, tree: bool) -> Seen:
    """Return what the rule asks for, from the bytes of a layer; ``tree`` as above."""
    return _seen(layer, _Stream(chunks).block, tree=tree)


def _look(repository: Repository, layer: Descriptor, *, tree: bool) -> Seen:
    if isinstance(repository, Ranges):
        return _seen(layer, partial(_block, repository, layer), tree=tree)
    with repository.open_blob(layer) as chunks:
        return see(layer, chunks, tree=tree)


def _block(repository: Ranges, layer: Descriptor, offset: int) -> bytes:
    return repository.blob_range(layer, offset, BLOCK)


def _seen(layer: Descriptor, block: Callable[[int], bytes], *, tree: bool) -> Seen:
    seen = Seen(layer, block(0))
    if not tree or any(MOUNTABLE.breaches(seen)):
        return seen
    return replace(seen, behind=block(tree_at(seen)))


class _Stream:
    """Blocks of a stream of bytes, each further on than the one before; memory for one chunk."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._held = b""
        self._start = 0

    def block(self, offset: int) -> bytes:
        """Return the ``BLOCK`` bytes at ``offset``, fewer where the stream ends."""
        while self._start + len(self._held) < offset + BLOCK:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            dropped = min(offset - self._start, len(self._held))
            self._held = self._held[dropped:] + chunk
            self._start += dropped
        first = offset - self._start
        return self._held[first : first + BLOCK]
