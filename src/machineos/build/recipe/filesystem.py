"""One folder becomes one layer: a squashfs or EROFS image with its dm-verity tree appended.

Invariant: the same tree, kind and epoch give the same bytes and thus the same digest; salt and UUID
of the hash tree come from the digest of the data. Format: docs/formats, "Layers".
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from machineos.build.recipe.veritylayer import VerityLayer, salt_and_uuid
from machineos.core.digest import Digest
from machineos.core.files import fsync_folder
from machineos.core.run import perform, run
from machineos.errors import SpaceError, ToolError
from machineos.host.kernel import superblock
from machineos.host.pack import erofs, squashfs, tools
from machineos.host.pack.caller import run_boxed
from machineos.host.pack.container import Bind, Box
from machineos.oci.model.atomfs import FilesystemKind, layer_media_type

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    from machineos.core.word import RootHash
    from machineos.host.pack.container import Ids

TOOLS: Final[Mapping[FilesystemKind, ModuleType]] = {"squashfs": squashfs, "erofs": erofs}
_CHUNK = 1 << 20
# Where the container sees what it packs, and puts what it made.
_TREE, _OUTPUT = Path("/tree"), Path("/output")


def make_layer(
    tree: Path,
    output: Path,
    *,
    kind: FilesystemKind = "squashfs",
    epoch: int,
    keep_times: bool = False,
    ids: Ids | None = None,
) -> VerityLayer:
    """Pack the folder ``tree`` into the new or replaced file ``output``.

    Modes, links, devices and extended attributes are kept; every time becomes ``epoch`` seconds, or
    with ``keep_times`` stays what it is in the tree (squashfs only: mkfs.erofs has no way to keep
    times and yet give the same bytes twice). Owners are those that a container with ``ids`` sees,
    and it is packed there; without, it is a tree of our own and all of it is root's. ``output``
    appears only when it is whole. Raises: ToolError, MissingToolError, SpaceError.
    """

    def argv(source: Path, image: Path) -> list[str]:
        owners = ids is not None
        if kind == "squashfs":
            return squashfs.argv_make(
                source, image, epoch=epoch, keep_times=keep_times, owners=owners
            )
        return erofs.argv_make(source, image, epoch=epoch, owners=owners)

    def pack(image: Path) -> None:
        if ids is None:
            run(argv(tree, image), timeout=TOOLS[kind].TIMEOUT)
            return
        os.chown(image.parent, ids.uid, ids.gid)
        box = Box(
            tuple(argv(_TREE, _OUTPUT / image.name)),
            binds=(Bind(tree, str(_TREE)), Bind(image.parent, str(_OUTPUT), writable=True)),
        )
        run_boxed(box, ids, timeout=TOOLS[kind].TIMEOUT)
        os.chown(image, os.geteuid(), os.getegid())

    return _make(pack, output, kind)


def make_streamed_layer(
    feed: Callable[[int], None], output: Path, *, mode: int, newest: int
) -> VerityLayer:
    """Pack a tar stream into a squashfs layer without a folder of files in between.

    For the arguments see ``squashfs.make_from_tar_command``, for the rest ``make_layer``.
    Raises: ToolError, MissingToolError, SpaceError, and what ``feed`` raises.
    """

    def pack(image: Path) -> None:
        perform(squashfs.make_from_tar_command(image, mode=mode, newest=newest), feed=feed)

    return _make(pack, output, "squashfs")


def _make(pack: Callable[[Path], None], output: Path, kind: FilesystemKind) -> VerityLayer:
    with tempfile.TemporaryDirectory(prefix=f".{output.name[:64]}.", dir=output.parent) as folder:
        image = Path(folder) / "image"
        try:
            pack(image)
        except ToolError as error:
            if "No space left" in error.message:
                raise SpaceError(f"{output}: no space left on the device") from error
            raise
        data_size = _pad(image)
        hasher = hashlib.sha256()
        _hash_from(image, 0, hasher)
        salt, uuid = salt_and_uuid(hasher.hexdigest())
        root_hash = tools.format_verity(image, data_size=data_size, salt=salt, uuid=uuid)
        size = _hash_from(image, data_size, hasher)
        image.chmod(0o644)
        image.replace(output)
    fsync_folder(output.parent)
    return VerityLayer(
        path=output,
        size=size,
        digest=Digest("sha256", hasher.hexdigest()),
        root_hash=root_hash,
        media_type=layer_media_type(kind, TOOLS[kind].COMPRESSION),
        data_size=data_size,
    )


def data_size_of(path: Path, kind: FilesystemKind, *, what: str) -> int:
    """Return how many bytes the file system in ``path`` uses, from its superblock.

    Raises: VerificationError when it is not a file system of that kind.
    """
    with path.open("rb") as file:
        return superblock.data_size(kind, file.read(superblock.BLOCK), what=what)


def verify_layer(path: Path, kind: FilesystemKind, *, root_hash: RootHash, what: str) -> None:
    """Check every block of a layer file against ``root_hash``.

    Raises: VerificationError, also for bytes that the hash tree does not cover; MissingToolError.
    """
    size = data_size_of(path, kind, what=what)
    tools.verify_verity(path, data_size=size, root_hash=root_hash, what=what)


def _pad(image: Path) -> int:
    size = superblock.round_up(image.stat().st_size)
    os.truncate(image, size)
    return size


def _hash_from(image: Path, offset: int, hasher: hashlib._Hash) -> int:
    """Feed the file from ``offset`` to ``hasher``; return the size of the file. The data is hashed
    once: its state goes on into the hash tree behind it."""
    with image.open("rb") as file:
        file.seek(offset)
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
        if offset:
            os.fsync(file.fileno())
        return file.tell()
