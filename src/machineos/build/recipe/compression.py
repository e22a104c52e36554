"""How layers are compressed, and the checks on what comes out: streams to streams.

Invariant: nothing grows without bound at once, however well it was compressed.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Literal

from machineos.errors import ArchiveError, DigestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from machineos.core.digest import Digest

Compression = Literal["", "gzip", "zstd"]

TAR_TYPES: dict[str, Compression] = {
    "application/vnd.oci.image.layer.v1.tar": "",
    "application/vnd.oci.image.layer.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd": "zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar": "",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": "zstd",
    "application/vnd.docker.image.rootfs.diff.tar": "",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": "zstd",
}
_PIECE = 1 << 20


def sniff(head: bytes) -> Compression:
    """Return the compression that the first bytes of a file show."""
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    return "zstd" if head.startswith(b"\x28\xb5\x2f\xfd") else ""


def gunzip(chunks: Iterable[bytes], what: str) -> Iterator[bytes]:
    """Decompress one or more gzip members, at most ``_PIECE`` bytes at a time: a small chunk can
    hold a gigabyte. Raises while iterating: ArchiveError."""
    decoder = zlib.decompressobj(wbits=31)
    begun = False
    try:
        for chunk in chunks:
            data = chunk
            while data := data if begun else data.lstrip(b"\0"):  # zeros may stand between members
                begun = True
                piece = decoder.decompress(data, _PIECE)
                data = decoder.unconsumed_tail
                if piece:
                    yield piece
                if decoder.eof:
                    data = decoder.unused_data
                    decoder = zlib.decompressobj(wbits=31)
                    begun = False
    except zlib.error as error:
        raise ArchiveError(f"{what}: is not a gzip stream: {error}") from error
    if begun:
        raise ArchiveError(f"{what}: its gzip stream is cut off")


def checked(chunks: Iterator[bytes], expected: Digest | None, what: str) -> Iterator[bytes]:
    """Yield ``chunks`` and compare their digest with ``expected``, when there is one.

    Raises at their end: DigestError.
    """
    if expected is None:
        yield from chunks
        return
    hasher = expected.hasher()
    for chunk in chunks:
        hasher.update(chunk)
        yield chunk
    if hasher.hexdigest() != expected.hex:
        raise DigestError(
            f"{what}: unpacked it has the digest {expected.algorithm}:{hasher.hexdigest()}, "
            f"its configuration says {expected}"
        )
