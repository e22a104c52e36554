"""Showing the files of a published image at a folder, verified and read-only.

Each layer is copied into a file that has no name, so that nobody else can reach it; every block of
that copy is checked against the root hash that the publisher signed; and that same open file is
what is mounted or unpacked. So what is seen is what was verified. The kernel's own dm-verity would
check again at every read, against a disk that changes: nobody can change this copy, and it takes a
device mapper, which few builders have.

How it is shown is decided in ``ways``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec

from machineos.build.publish.ways import Facts, Way, plan
from machineos.build.recipe.filesystem import verify_layer
from machineos.core.files import needing_space, read_bounded, write_atomic
from machineos.core.jsondoc import decode_json
from machineos.core.run import find, perform
from machineos.errors import ConflictError, MissingError
from machineos.host.kernel import loopdev, mount
from machineos.host.pack import erofs, fuse, squashfs
from machineos.oci.model.atomfs import layer_type_of, root_hash_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from machineos.document.verify.images import VerifiedImage
    from machineos.oci.model.documents import Descriptor
    from machineos.oci.model.repository import Repository

_MAX_RECORD = 1 << 16
_FLAGS = mount.Flag.RDONLY | mount.Flag.NOSUID | mount.Flag.NODEV


class Shown(msgspec.Struct, frozen=True):
    """The record of what is shown at a folder, so that only that is taken away again.

    ``device`` and ``inode`` are those of the folder. A file system gives an inode out again, so
    ``changed`` is when the folder was last changed, in nanoseconds: it is made read-only last.
    """

    path: str
    way: Way
    device: int
    inode: int
    changed: int = 0  # in records of before: of no folder


def _shown_at(target: Path, way: Way) -> Shown:
    status = target.stat()
    return Shown(str(target), way, status.st_dev, status.st_ino, status.st_ctime_ns)


def facts() -> Facts:
    """Look at this machine."""
    root = os.geteuid() == 0
    helper = root or find(fuse.HELPER) is not None
    able = find(fuse.PROGRAM) is not None and helper and os.access("/dev/fuse", os.R_OK | os.W_OK)
    return Facts(kernel=root and Path("/dev/loop-control").exists(), fuse=able)


def show(
    store: Repository,
    image: VerifiedImage,
    target: Path,
    *,
    cache: Path,
    wanted: Way | None = None,
    say: Callable[[str], None] = lambda _line: None,
) -> Way:
    """Show an image at the folder ``target``, which is made, or there and empty; return how.

    Raises: ConflictError (``target`` is in use), MissingError, VerificationError, TransferError,
    ToolError, SpaceError. After an error, and after Ctrl-C, nothing is left.
    """
    target = target.absolute()
    kinds = tuple(layer_type_of(layer).filesystem for layer in image.layers)
    way = plan(facts(), kinds, wanted)
    made = _require_free(target)
    record = _record_path(cache, target)
    with ExitStack() as undo, ExitStack() as files:
        copies = []
        for layer in image.layers:
            say(f"read and check {layer.digest}")
            copies.append(files.enter_context(_verified_copy(store, layer, image.name, cache)))
        if made:
            target.mkdir(mode=0o755)
            undo.callback(target.rmdir)
        if way == "unpacked":
            undo.callback(_empty, target)
            private = _unpacked(copies, kinds, target)
            say(f"show it at {target}")
            _move_up(private, target)
        elif way == "fuse":
            say(f"show it at {target}")
            perform(fuse.mount_command(copies[0].fileno(), target))
            undo.callback(_unmount, target, way)
        else:
            say(f"show it at {target}")
            _mount(copies, kinds, target, cache)
            undo.callback(mount.unmount, target, lazy=True)
        shown = _shown_at(target, way)
        record.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(record, json.dumps(msgspec.to_builtins(shown)).encode())
        undo.pop_all()
    return way


def hide(target: Path, *, cache: Path) -> Shown:
    """End what ``show`` shows at a folder, which is empty then; return what it was.

    Raises: MissingError (nothing of ours is there: nothing is removed, and a record of it is
    forgotten), ToolError (in use).
    """
    target = target.absolute()
    record = _record_path(cache, target)
    try:
        shown = decode_json(read_bounded(record, _MAX_RECORD), Shown, name=str(record))
        there = _shown_at(target, shown.way)
    except (MissingError, FileNotFoundError) as error:
        raise MissingError(f"nothing is shown at {target}") from error
    if there != shown:
        record.unlink()
        raise MissingError(
            f"what was shown at {target} is not there any more, or somebody changed it",
            hint="nothing was removed: look at what is there, and remove it yourself",
        )
    if shown.way == "unpacked":
        _empty(target)
    else:
        _unmount(target, shown.way)
    record.unlink()
    return shown


def _record_path(cache: Path, target: Path) -> Path:
    name = hashlib.sha256(os.fsencode(target)).hexdigest()
    return cache / "shown" / f"{name}.json"


def _require_free(target: Path) -> bool:
    """Return whether ``target`` has to be made. Raises: ConflictError, MissingError."""
    if not os.path.lexists(target):
        if not target.parent.is_dir():
            raise MissingError(f"{target.parent} is not a folder")
        return True
    if target.is_symlink() or not target.is_dir() or any(target.iterdir()):
        raise ConflictError(f"{target} is not an empty folder", hint="name one that is")
    if mount.is_mounted(target):
        raise ConflictError(
            f"something is mounted at {target}", hint="mosb manifest unmount ends what we show"
        )
    return False


@contextmanager
def _verified_copy(
    store: Repository, layer: Descriptor, name: str, cache: Path
) -> Iterator[IO[bytes]]:
    """Yield a file without a name that holds a layer, each block of which has its root hash."""
    cache.mkdir(parents=True, exist_ok=True)
    with needing_space(cache), tempfile.TemporaryFile(dir=cache) as file:
        with store.open_blob(layer) as chunks:
            for chunk in chunks:
                file.write(chunk)
        file.flush()
        kind = layer_type_of(layer).filesystem
        verify_layer(
            _open_path(file), kind, root_hash=root_hash_of(layer), what=f"{name}: {layer.digest}"
        )
        yield file


def _open_path(file: IO[bytes]) -> Path:
    """Return a path to an open file, for programs of ours that run while it is open."""
    return Path(f"/proc/{os.getpid()}/fd/{file.fileno()}")


def _mount(copies: list[IO[bytes]], kinds: tuple[str, ...], target: Path, cache: Path) -> None:
    """Mount the layers, the first one lowest, at ``target``."""
    if len(copies) == 1:
        _mount_file(copies[0], kinds[0], target)
        return
    with tempfile.TemporaryDirectory(dir=cache) as name, ExitStack() as below:
        folders: list[Path] = []
        for number, (copy, kind) in enumerate(zip(copies, kinds, strict=True)):
            folder = Path(name) / str(number)
            folder.mkdir()
            _mount_file(copy, kind, folder)
            below.callback(mount.unmount, folder, lazy=True)
            folders.insert(0, folder)
        lower = ":".join(_escaped(folder) for folder in folders)
        mount.mount("overlay", target, "overlay", _FLAGS, f"lowerdir={lower}")


def _mount_file(copy: IO[bytes], kind: str, target: Path) -> None:
    with loopdev.attach(copy.fileno(), label="mosb manifest mount") as device:
        mount.mount(device.path, target, kind, _FLAGS)


def _escaped(path: Path) -> str:
    """Return a path as overlay reads it in a list that is an option."""
    text = str(path)
    for char in "\\:,":
        text = text.replace(char, f"\\{char}")
    return text


def _unpacked(copies: list[IO[bytes]], kinds: tuple[str, ...], target: Path) -> Path:
    """Unpack the layers, the first one lowest; return the folder in ``target`` that they are in,
    each file harmless and read-only.

    Nobody else can enter it: while root unpacks, programs have the owners and the set-user-id bits
    of the image, and its devices are there.
    """
    private = Path(tempfile.mkdtemp(dir=target))
    tree = private / "tree"
    tree.mkdir()
    for copy, kind in zip(copies, kinds, strict=True):
        tool = squashfs if kind == "squashfs" else erofs
        perform(tool.view_command(_open_path(copy), tree))
    _make_read_only(tree)
    return private


def _make_read_only(tree: Path) -> None:
    """Make all in a tree the caller's own and read-only, without devices."""
    user, group = os.geteuid(), os.getegid()
    _open_folders(tree)
    for folder, folders, names in os.walk(tree, topdown=False):
        for name in [*folders, *names]:
            path = Path(folder) / name
            mode = path.lstat().st_mode
            if stat.S_ISBLK(mode) or stat.S_ISCHR(mode):
                path.unlink()
                continue
            os.lchown(path, user, group)
            if stat.S_ISREG(mode):
                path.chmod((mode | stat.S_IRUSR) & 0o555)
        Path(folder).chmod(0o555)


def _move_up(private: Path, target: Path) -> None:
    """Move what is in the tree of ``private`` into ``target``, and make that read-only.

    A folder must be writable to be moved; who owns ``target`` may put something else in its place
    meanwhile, so it is closed by a descriptor.
    """
    tree = private / "tree"
    tree.chmod(0o700)
    for child in sorted(tree.iterdir()):
        if child.is_symlink() or not child.is_dir():
            child.rename(target / child.name)
            continue
        child.chmod(0o755)
        folder = os.open(child, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            child.rename(target / child.name)
            os.fchmod(folder, 0o555)
        finally:
            os.close(folder)
    tree.rmdir()
    private.rmdir()
    target.chmod(0o555)


def _empty(tree: Path) -> None:
    """Remove what is in a folder that was unpacked, and leave it as a new one."""
    _open_folders(tree)
    for child in tree.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()


def _open_folders(tree: Path) -> None:
    """Let the owner into every folder, each before anybody looks into it."""
    tree.chmod(0o755)
    for folder, names, _ in os.walk(tree):
        for name in names:
            path = Path(folder) / name
            if not path.is_symlink():
                path.chmod(0o755)


def _unmount(target: Path, way: Way) -> None:
    if way == "kernel" or os.geteuid() == 0:
        mount.unmount(target)
    else:
        perform(fuse.unmount_command(target))
