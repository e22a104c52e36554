"""How layers are compressed, and the checks on what comes out: streams to streams.

Invariant: nothing grows without bound at once, however well it was compressed.
"""

from __future__ import annotations

import zlib
from itertools import chain
from typing import TYPE_CHECKING, Literal

from machineos.errors import ArchiveError, DigestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from machineos.core.digest import Digest

Compression = Literal["", "gzip", "zstd", "xz", "bzip2"]

# What follows the dot or plus counts for nothing: which compression it is the bytes say, and what
# they have to be unpacked is the DiffID's to decide. Some builders write one and mean the other.
TAR_TYPES = frozenset(
    f"{kind}{compression}"
    for kind, compressions in {
        "application/vnd.oci.image.layer.v1.tar": ("", "+gzip", "+zstd"),
        "application/vnd.oci.image.layer.nondistributable.v1.tar": ("", "+gzip", "+zstd"),
        "application/vnd.docker.image.rootfs.diff.tar": ("", ".gzip", ".zstd"),
        "application/vnd.docker.image.rootfs.foreign.diff.tar": ("", ".gzip", ".zstd"),
    }.items()
    for compression in compressions
)
_PIECE = 1 << 20
_HEAD = 6
_MEMORY = 256 << 20  # of xz: more than its own best level needs
_MAGIC: dict[bytes, Compression] = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\0": "xz",
    b"BZh": "bzip2",
}
_SKIPPABLE = b"\x2a\x4d\x18"  # behind a first byte of 0x50 to 0x5f, also of zstd (RFC 8878, 3.1.2)
_STRANGE = {b"\x04\x22\x4d\x18": "lz4", b"LZIP": "lzip", b"\x1f\x9d": "compress",
            b"\x5d\x00\x00": "lzma", b"PK\x03\x04": "zip", b"7z\xbc\xaf": "7z"}  # fmt: skip


def sniff(head: bytes, what: str) -> Compression:
    """Return the compression that the first bytes of a file show. Raises: ArchiveError (one that
    we cannot read)."""
    for magic, strange in _STRANGE.items():
        if head.startswith(magic):
            raise ArchiveError(
                f"{what}: is packed with {strange}, which is not supported",
                hint="pack it with gzip, zstd, xz or bzip2, or not at all",
            )
    if head[:1] and 0x50 <= head[0] <= 0x5F and head[1:4] == _SKIPPABLE:
        return "zstd"
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "")


def identified(chunks: Iterable[bytes], what: str) -> tuple[Compression, Iterator[bytes]]:
    """Return how a stream is compressed, and all of it. Raises: ArchiveError, and what ``chunks``
    raises."""
    rest = iter(chunks)
    head = b""
    for chunk in rest:
        head += chunk
        if len(head) >= _HEAD:
            break
    return sniff(head, what), chain([head] if head else [], rest)


def unpacked(chunks: Iterable[bytes], kind: Literal["xz", "bzip2"], what: str) -> Iterator[bytes]:
    """Decompress one or more streams of xz or bzip2, at most ``_PIECE`` bytes at a time.

    Raises while iterating: ArchiveError.
    """
    import bz2
    import lzma

    decoder: bz2.BZ2Decompressor | lzma.LZMADecompressor | None = None
    try:
        for chunk in chunks:
            data = chunk
            while True:
                if decoder is None:
                    data = data.lstrip(b"\0")  # zeros may stand between streams
                    if not data:
                        break
                    decoder = (
                        bz2.BZ2Decompressor()
                        if kind == "bzip2"
                        else lzma.LZMADecompressor(lzma.FORMAT_XZ, _MEMORY)
                    )
                piece = decoder.decompress(data, _PIECE)
                data = b""
                if piece:
                    yield piece
                if decoder.eof:
                    data = decoder.unused_data
                    decoder = None
                elif decoder.needs_input:
                    break
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise ArchiveError(f"{what}: is not a {kind} stream: {error}") from error
    if decoder is not None:
        raise ArchiveError(f"{what}: its {kind} stream is cut off")


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
