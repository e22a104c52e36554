"""Layers of any kind as one stream of what is in them: tar (plain, gzip, zstd), squashfs, EROFS.

Invariant: what comes out was
checked against the layer's digest (by the repository) and, for tar, the uncompressed bytes against
the configuration's ``diff_id``, before ``Flattener`` writes any of it.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.build.recipe.compression import TAR_TYPES, checked, gunzip, identified, unpacked
from machineos.build.recipe.filesystem import verify_layer
from machineos.errors import DocumentError, Fault
from machineos.host.pack import erofs, squashfs, zstd
from machineos.host.pack.caller import boxed_output, container_ids, ids_to_look
from machineos.oci.model.atomfs import parse_layer_type, root_hash_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from machineos.build.recipe.compression import Compression
    from machineos.build.recipe.flatten import Flattener
    from machineos.core.digest import Digest
    from machineos.host.pack.container import Ids
    from machineos.oci.model.atomfs import FilesystemKind
    from machineos.oci.model.documents import Descriptor
    from machineos.oci.model.repository import Repository


def add_layers(
    flattener: Flattener,
    source: Repository,
    layers: Iterable[Descriptor],
    diff_ids: tuple[Digest, ...],
    *,
    work: Path,
    image: str = "",
) -> None:
    """Apply ``layers`` of an image in ``source``, lowest first, to ``flattener``; ``image`` is what
    messages call it.

    ``work`` is a folder for temporary files. Raises: ArchiveError, VerificationError, DigestError,
    DocumentError for an unknown media type, TransferError, ToolError,
    UsageError (an EROFS, for a caller without subordinate ids: its owners would be lost).
    """
    for index, layer in enumerate(layers):
        what = f"{image or source.name}: layer {layer.digest}"
        if layer.media_type in TAR_TYPES:
            with source.open_blob(layer) as chunks:
                with uncompressed(chunks, work=work, what=what) as (compression, plain):
                    expected = diff_ids[index] if index < len(diff_ids) else None
                    if not compression and expected == layer.digest:
                        expected = None  # the same bytes, which the repository hashes already
                    flattener.add(checked(plain, expected, what), what=what)
                for _rest in chunks:  # to the end, where the digest is checked
                    pass
        else:
            _add_filesystem(flattener, source, layer, work, what)


@contextmanager
def uncompressed(
    chunks: Iterable[bytes], *, work: Path, what: str
) -> Iterator[tuple[Compression, Iterator[bytes]]]:
    """Yield how a stream is compressed, by its first bytes, and its chunks uncompressed.

    Raises: ArchiveError, also while iterating.
    """
    compression, whole = identified(chunks, what)
    match compression:
        case "":
            yield compression, whole
        case "gzip":
            yield compression, gunzip(whole, what)
        case "xz" | "bzip2":
            yield compression, unpacked(whole, compression, what)
        case "zstd":
            with zstd.spooled(whole, work) as path, zstd.decompressed(path, what=what) as plain:
                yield compression, plain


def add_file_system(
    flattener: Flattener,
    image: Path,
    kind: FilesystemKind,
    *,
    what: str,
    ids: Ids,
    owners: bool = False,
    overlay: bool = False,
) -> None:
    """Add what is in the file system ``image``, named ``what`` in messages; ``overlay``: there are
    layers below, from which its whiteouts take something away.

    It is taken apart in a container with ``ids``, which has no network and sees only the image. Of
    an EROFS the ``owners`` are seen only when asked for, which takes more than one id. Raises:
    ArchiveError, MissingToolError.
    """
    left = flattener.left
    box = (
        squashfs.tar_box(image)
        if kind == "squashfs"
        else erofs.tar_box(
            image,
            size=min(left.expanded, _memory()),
            members=left.members,
            owners=owners,
        )
    )
    with boxed_output(box, ids, problem=f"{what}: is not a whole {kind}") as plain:
        flattener.add(plain, what=what, overlay=overlay)


def _add_filesystem(
    flattener: Flattener, source: Repository, layer: Descriptor, work: Path, what: str
) -> None:
    kind = parse_layer_type(layer.media_type)
    if kind is None:
        raise DocumentError(
            what, [Fault("mediaType", 0, f"{layer.media_type[:120]!r} cannot be unpacked")]
        )
    root_hash = root_hash_of(layer)
    # Of a squashfs everything is seen without.
    ids = ids_to_look() if kind.filesystem == "squashfs" else container_ids(f"{what}: unpacking it")
    with tempfile.NamedTemporaryFile(dir=work, prefix="layer-") as file:
        with source.open_blob(layer) as chunks:
            for chunk in chunks:
                file.write(chunk)
        file.flush()
        os.fchmod(file.fileno(), 0o644)  # for the ids that take it apart
        path = Path(file.name)
        verify_layer(path, kind.filesystem, root_hash=root_hash, what=what)
        add_file_system(
            flattener, path, kind.filesystem, what=what, ids=ids, owners=True, overlay=True
        )


def _memory() -> int:
    """How much of a machine's memory what is unpacked there may take."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
