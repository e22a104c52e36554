from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from machineos.build.recipe.flatten import Flattener
from machineos.build.recipe.member import Limits, Policy
from machineos.document.model.image import Sight
from machineos.errors import ArchiveError
from machineos.host.pack.container import Ids
from machineos.service.act import rootfs
from unit.build.elf import program
from unit.build.tarmaker import END, extended, folder, hardlink, member, record, symlink

if TYPE_CHECKING:
    from collections.abc import Iterator

AS_IT_IS = Ids(0, 0, 65536, 0)


def flatten(work: Path, *layers: bytes, limits: Limits | None = None) -> Path:
    with new(work, limits or Limits()) as flattener:
        for index, layer in enumerate(layers):
            flattener.add((layer + END,), what=f"layer {index}")
        before = set(work.iterdir())
        flattener.write(work / "tree", AS_IT_IS)
    assert set(work.iterdir()) == before | {work / "tree"}
    return work / "tree"


@contextmanager
def new(work: Path, limits: Limits = Limits()) -> Iterator[Flattener]:  # noqa: B008 (frozen)
    with tempfile.TemporaryFile(dir=work) as spool:
        yield Flattener(spool, limits=limits, policy=Policy())


def shape(tree: Path) -> dict[str, str]:
    """What is in a tree: name to content, ``-> target`` or ``/``."""
    found = {}
    for path in sorted(tree.rglob("*")):
        name = str(path.relative_to(tree))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        else:
            found[name] = "/" if path.is_dir() else path.read_text()
    return found


pytestmark = pytest.mark.root


def test_writes_files_folders_and_links_with_their_metadata(tmp_path: Path) -> None:
    tree = flatten(
        tmp_path,
        folder("./", 0o750)
        + folder("d/", 0o1777)
        + member("d/f", b"one", mode=0o604, uid=1234, gid=5678, mtime=99)
        + hardlink("other", "d/f")
        + symlink("s", "../../etc/passwd"),
    )
    assert shape(tree) == {"d": "/", "d/f": "one", "other": "one", "s": "-> ../../etc/passwd"}
    status = (tree / "d/f").stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o604, 1234, 5678)
    assert (status.st_mtime, status.st_nlink) == (99, 2)
    assert (tree / "other").stat().st_ino == status.st_ino
    assert tree.stat().st_mode & 0o7777 == 0o750
    assert (tree / "d").stat().st_mode & 0o7777 == 0o1777


def test_keeps_capabilities(tmp_path: Path) -> None:
    value = b"\x01\0\0\x02\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    header = extended(b"x", record("SCHILY.xattr.security.capability", value))
    tree = flatten(tmp_path, header + member("ping", b"x", mode=0o755))
    assert os.getxattr(tree / "ping", "security.capability") == value


def test_nothing_is_written_of_an_archive_that_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError):
        flatten(tmp_path, member("d/x"), member("e") + member("d/../x"))
    assert list(tmp_path.iterdir()) == []


def test_limits_count_over_all_layers(tmp_path: Path) -> None:
    layers = (member("a", bytes(3000)), member("b", bytes(3000)))
    (tmp_path / "one").mkdir()
    with pytest.raises(ArchiveError, match="layer 1: expands to more than"):
        flatten(tmp_path / "one", *layers, limits=Limits(expanded=7000))
    (tmp_path / "two").mkdir()
    with pytest.raises(ArchiveError, match="layer 1: has more than 1 members"):
        flatten(tmp_path / "two", layers[0], layers[1] + member("c"), limits=Limits(members=2))


PATHS = (
    "/etc/passwd", "/etc/group", "/etc/empty", "/etc/big", "/etc/absent", "/etc/link", "/etc/below",
    "/absent/file", "/away/passwd", "/etc/passwd/x", "/top", "/etc/below/absent/x",
)  # fmt: skip


def test_a_machine_sees_in_an_image_what_the_publisher_saw(tmp_path: Path) -> None:
    """The same answers and the same words, of the tree in memory and of what is written of it."""
    lower = folder("etc/") + member("etc/passwd", b"old") + member("etc/gone", b"1")
    upper = (
        member("etc/passwd", b"root:x:0:0::/:\n")
        + hardlink("etc/group", "etc/passwd")
        + member("etc/empty", b"")
        + member("etc/big", b"x" * 101)
        + symlink("etc/link", "passwd")
        + folder("etc/below/")
        + symlink("away", "etc")
        + member("top", b"1")
    )
    with new(tmp_path) as flattener:
        for index, layer in enumerate((lower, upper)):
            flattener.add((layer + END,), what=f"layer {index}")
        tree = tmp_path / "tree"
        early = {path: flattener.see_file(path, limit=100) for path in PATHS}
        flattener.write(tree, AS_IT_IS)
        assert {path: rootfs.see_file(tree, path, limit=100) for path in PATHS} == early
        for path in ("/", *PATHS):
            assert flattener.tree.see_folder(path) == rootfs.see_folder(tree, path)
        assert flattener.see_file("/etc/big", limit=101) == Sight(data=b"x" * 101)
    assert early["/etc/passwd"] == early["/etc/group"] == Sight(data=b"root:x:0:0::/:\n")


def test_a_file_of_an_image_is_read_up_to_what_a_machine_reads(tmp_path: Path) -> None:
    layer = member("a", b"a" * (1 << 20)) + member("b", b"b" * ((1 << 20) + 1))
    with new(tmp_path) as flattener:
        flattener.add((layer + END,), what="layer")
        assert flattener.see_file("/a") == Sight(data=b"a" * (1 << 20))
        assert flattener.see_file("/b") == Sight("/b is larger than 1048576 bytes")


def test_reports_what_it_stripped(tmp_path: Path) -> None:
    with new(tmp_path) as flattener:
        flattener.add((member("bin/su", b"x", mode=0o4755) + END,), what="layer")
        flattener.write(tmp_path / "tree", AS_IT_IS)
    assert flattener.stripped == ["bin/su"]
    assert (tmp_path / "tree/bin/su").stat().st_mode & 0o7777 == 0o755


def test_takes_the_content_of_a_file_system_with_the_whiteouts_of_overlayfs(
    tmp_path: Path,
) -> None:
    opaque = extended(b"x", record("SCHILY.xattr.trusted.overlay.opaque", b"y")) + folder("d/")
    upper = opaque + member("d/new", b"2") + hardlink("link", "d/new")
    upper += member("gone", kind=b"3")
    lower = folder("d/") + member("d/old", b"1") + member("gone", b"1") + member("kept", b"1")
    with new(tmp_path) as flattener:
        flattener.add((lower + END,), what="lower")
        flattener.add((upper + END,), what="upper", overlay=True)
        flattener.write(tmp_path / "tree", AS_IT_IS)
    assert shape(tmp_path / "tree") == {"d": "/", "d/new": "2", "kept": "1", "link": "2"}


@pytest.mark.parametrize("kind", [b"3", b"4", b"6"])
def test_refuses_a_file_system_with_what_is_no_file(tmp_path: Path, kind: bytes) -> None:
    # CVE-2024-29068: a FIFO in a squashfs image makes its reader hang.
    with (
        new(tmp_path) as flattener,
        pytest.raises(ArchiveError, match=r"upper: member 'x' is a"),
    ):
        flattener.add((member("x", kind=kind, device=(1, 5)) + END,), what="upper", overlay=True)


def test_an_owner_that_no_container_has_is_refused(tmp_path: Path) -> None:
    with new(tmp_path) as flattener:
        flattener.add((member("x", uid=65536) + END,), what="layer")
        with pytest.raises(ArchiveError, match="belongs to 65536:0, and a tree of files can hold"):
            flattener.write(tmp_path / "tree", AS_IT_IS)


def test_the_programs_of_what_the_layers_make(tmp_path: Path) -> None:
    """Not of what a later layer replaced, and of a file with two names once."""
    bad, good = program(7), program(6)
    with new(tmp_path) as flattener:
        flattener.add(
            (member("a", bad) + member("d/b", b"text") + member("gone", bad) + END,), what="1"
        )
        upper = (
            member("a", good) + member(".wh.gone", b"") + member("d/c", bad) + hardlink("e", "d/c")
        )
        flattener.add((upper + symlink("f", "d/c") + member("g", bad[:70]) + END,), what="2")
        found = list(flattener.programs())
    assert {each.path: each.stack for each in found if each.path not in {"/d/c", "/e"}} == {
        "/a": "plain"
    }
    assert [each.stack for each in found if each.path in {"/d/c", "/e"}] == ["executable"]
