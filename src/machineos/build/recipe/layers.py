"""Layers of any kind as one stream of what is in them: tar (plain, gzip, zstd), squashfs, EROFS.

Invariant: what comes out was
checked against the layer's digest (by the repository) and, for tar, the uncompressed bytes against
the configuration's ``diff_id``, before ``Flattener`` writes any of it.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.build.recipe.compression import TAR_TYPES, checked, gunzip, identified, unpacked
from machineos.build.recipe.filesystem import verify_layer
from machineos.build.recipe.sandbox import require_root
from machineos.core.run import perform
from machineos.errors import (
    ArchiveError,
    DocumentError,
    Fault,
    MissingToolError,
    ToolError,
    UsageError,
)
from machineos.host.pack import erofs, squashfs, zstd
from machineos.host.pack.pipe import piped
from machineos.oci.model.atomfs import parse_layer_type, root_hash_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from machineos.build.recipe.compression import Compression
    from machineos.build.recipe.flatten import Flattener
    from machineos.core.digest import Digest
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
    UsageError (a file system without root: its owners would be lost).
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
    flattener: Flattener, image: Path, kind: FilesystemKind, *, work: Path, what: str
) -> None:
    """Add what is in the file system ``image``, the only layer: nothing in it takes anything away.

    As any user; but of an EROFS owners and attributes are not seen, and only root reads what its
    owner may not. Raises: ArchiveError, MissingToolError, UsageError.
    """
    if kind == "squashfs":
        problem = f"{what}: is not a whole squashfs"
        with piped(squashfs.tar_command(image), problem=problem) as chunks:
            flattener.add(chunks, what=what)
        return
    with tempfile.TemporaryDirectory(dir=work, prefix="layer-") as name:
        tree = Path(name) / "tree"
        try:
            perform(erofs.unpack_command(image, tree, owners=False))
            flattener.add_folder(tree, what=what)
        except MissingToolError:
            raise
        except ToolError as error:
            raise ArchiveError(f"{what}: cannot be unpacked: {error.message}") from error
        except PermissionError as error:
            raise UsageError(f"{what}: holds what only root may read: {error.filename}") from error


def _add_filesystem(
    flattener: Flattener, source: Repository, layer: Descriptor, work: Path, what: str
) -> None:
    kind = parse_layer_type(layer.media_type)
    if kind is None:
        raise DocumentError(
            what, [Fault("mediaType", 0, f"{layer.media_type[:120]!r} cannot be unpacked")]
        )
    root_hash = root_hash_of(layer)
    require_root(f"{what}: unpacking a file system")
    with tempfile.TemporaryDirectory(dir=work, prefix="layer-") as name:
        path, tree = Path(name) / "image", Path(name) / "tree"
        with source.open_blob(layer) as chunks, path.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
        verify_layer(path, kind.filesystem, root_hash=root_hash, what=what)
        tool = squashfs if kind.filesystem == "squashfs" else erofs
        perform(tool.unpack_command(path, tree))
        flattener.add_folder(tree, what=what)
