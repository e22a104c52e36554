"""Files that are old or new; reads that are bounded and never block; locks."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from machineos.core.files import (
    atomic,
    erase,
    fsync_folder,
    fsync_tree,
    locked,
    read_bounded,
    read_named,
    write_atomic,
)
from machineos.core.run import run
from machineos.errors import ConflictError, DocumentError, MissingError, SpaceError
from waiting import PATIENCE


def test_write_atomic_replaces(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"one", mode=0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    inode = path.stat().st_ino
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_ino != inode
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"mine")
    (tmp_path / "link").symlink_to("target")
    write_atomic(tmp_path / "link", b"new")
    assert (tmp_path / "target").read_bytes() == b"mine"
    assert not (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_a_failure_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail() -> None:
        with atomic(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_mode_comes_before_the_first_byte(tmp_path: Path) -> None:
    with atomic(tmp_path / "key", mode=0o600) as file:
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600
        assert not (tmp_path / "key").exists()


@pytest.mark.system
def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """On a tmpfs of 64 KiB, mounted in a namespace of its own."""
    script = """
import sys
from pathlib import Path
from machineos.core.files import write_atomic
from machineos.errors import SpaceError
folder = Path(sys.argv[1])
write_atomic(folder / "file", b"old")
try:
    write_atomic(folder / "file", bytes(1 << 20))
except SpaceError as error:
    print(error.message)
print(sorted(path.name for path in folder.iterdir()), (folder / "file").read_bytes())
"""
    mounted = f"mount -t tmpfs -o size=64k none {tmp_path}"
    command = f"{mounted} && exec {sys.executable} -c '{script}' {tmp_path}"
    lines = run(["unshare", "--mount", "sh", "-c", command], timeout=PATIENCE).text.splitlines()
    assert lines == [f"{tmp_path}/file: no space left on the device", "['file'] b'old'"]


def test_read_bounded(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_bounded(path, 5) == b"12345"
    with pytest.raises(DocumentError, match="larger than 4 bytes"):
        read_bounded(path, 4)
    with pytest.raises(MissingError):
        read_bounded(tmp_path / "none", 5)


def test_read_bounded_refuses_what_is_no_file(tmp_path: Path) -> None:
    """Row 11 of the attacks: a FIFO would block, /dev/zero never ends, a link leads elsewhere."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "folder").mkdir()
    opened = len(list(Path("/proc/self/fd").iterdir()))
    for path, part in (
        (tmp_path / "fifo", "regular file"),
        (tmp_path / "folder", "regular file"),
        (Path("/dev/zero"), "regular file"),
        (tmp_path / "link", "symbolic link"),
    ):
        with pytest.raises(DocumentError, match=part):
            read_bounded(path, 100)
    assert len(list(Path("/proc/self/fd").iterdir())) == opened


def test_a_lock_excludes(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "lock"
    with locked(path, what="the thing"):
        with (
            pytest.raises(ConflictError, match="the thing is in use"),
            locked(path, what="the thing"),
        ):
            pytest.fail("both hold it")
    with locked(path, what="the thing", wait=True):
        pass


def test_space_error_is_of_its_own_kind() -> None:
    assert SpaceError.exit_code == 10


class Disk:
    """Stands for fsync: notes what is synced, and how the final name looks at that moment."""

    def __init__(self, final: Path) -> None:
        self.final = final
        self.seen: list[tuple[str, bytes, bytes | None]] = []

    def __call__(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        data = b"" if path.is_dir() else path.read_bytes()
        there = self.final.read_bytes() if self.final.exists() else None
        kind = "folder" if path == self.final.parent else "hidden" if path.name[0] == "." else "?"
        self.seen.append((kind, data, there))


def test_the_name_appears_between_the_sync_of_the_file_and_that_of_the_folder(
    tmp_path: Path,
) -> None:
    """The content is complete when it is synced, the old name still stands, the new one comes."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    disk = Disk(path)
    with atomic(path, sync=disk) as file:
        file.write(b"new")
    assert disk.seen == [("hidden", b"new", b"old"), ("folder", b"", b"new")]


def test_a_cache_syncs_nothing(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "file")
    with atomic(tmp_path / "file", durable=False, sync=disk) as file:
        file.write(b"new")
    assert disk.seen == []
    assert (tmp_path / "file").read_bytes() == b"new"


def test_folders_and_trees_are_synced_from_the_leaves_up(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    for name in ("two", "one", "a/x", "a/b/y"):
        (tmp_path / name).write_text(name)
    seen: list[str] = []

    def note(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        seen.append(str(path.relative_to(tmp_path)))

    before = len(list(Path("/proc/self/fd").iterdir()))
    fsync_tree(tmp_path, sync=note)
    assert seen == ["a/b/y", "a/b", "a/x", "a", "one", "two", "."]
    seen.clear()
    fsync_folder(tmp_path / "a", sync=note)
    assert seen == ["a"]
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    with pytest.raises(NotADirectoryError):
        fsync_folder(tmp_path / "one")
    (tmp_path / "link").symlink_to("one")
    with pytest.raises(OSError, match="symbolic"):
        fsync_tree(tmp_path)


@pytest.mark.parametrize("size", [0, 1, 4096, 1_700_001])
def test_an_erased_file_is_overwritten_where_it_lay(tmp_path: Path, size: int) -> None:
    """A second name of it shows what became of its blocks."""
    path, second = tmp_path / "key", tmp_path / "second"
    path.write_bytes(b"k" * size)
    second.hardlink_to(path)
    erase(path)
    assert not path.exists()
    assert second.read_bytes() == bytes(size)


def test_only_what_is_a_file_is_erased(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"keep")
    link.symlink_to(target)
    with pytest.raises(DocumentError, match="is a symbolic link"):
        erase(link)
    assert (target.read_bytes(), link.is_symlink()) == (b"keep", True)
    with pytest.raises(MissingError):
        erase(tmp_path / "none")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(DocumentError, match="is not a regular file"):
        erase(tmp_path / "fifo")


# -- files that the user names


def test_a_file_that_the_user_names_may_be_a_link_or_a_pipe(tmp_path: Path) -> None:
    """Each file of a mounted Kubernetes Secret is a link to a link."""
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026/key").write_bytes(b"text")
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "key").symlink_to("..data/key")
    assert read_named(tmp_path / "key", 4) == b"text"
    with pytest.raises(DocumentError, match="is larger than 3 bytes"):
        read_named(tmp_path / "key", 3)
    reader, writer = os.pipe()
    os.write(writer, b"from a command")
    os.close(writer)
    assert read_named(Path(f"/dev/fd/{reader}"), 100) == b"from a command"
    os.close(reader)


def test_what_is_no_file_of_a_user(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to("nowhere")
    for path in (tmp_path / "gone", tmp_path / "no"):
        with pytest.raises(MissingError, match="does not exist"):
            read_named(path, 4)
    for path in (tmp_path, Path("/dev/zero")):
        with pytest.raises(DocumentError, match="is not a regular file"):
            read_named(path, 4)
