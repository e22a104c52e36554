from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from machineos.build.recipe.archive import Limits, Policy
from machineos.build.recipe.flatten import Flattener
from machineos.errors import ArchiveError
from unit.build.tarmaker import END, extended, folder, hardlink, member, record, symlink

if TYPE_CHECKING:
    from collections.abc import Iterator


def flatten(work: Path, *layers: bytes, limits: Limits | None = None) -> Path:
    with new(work, limits or Limits()) as flattener:
        for index, layer in enumerate(layers):
            flattener.add((layer + END,), what=f"layer {index}")
        before = set(work.iterdir())
        flattener.write(work / "tree")
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


def refused(work: Path, message: str, *layers: bytes) -> None:
    before = sorted(work.iterdir())
    (work / "inner").mkdir()
    with pytest.raises(ArchiveError, match=message):
        flatten(work / "inner", *layers)
    assert not (work / "inner" / "tree").exists()
    (work / "inner").rmdir()
    assert sorted(work.iterdir()) == before


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


def test_a_later_layer_wins(tmp_path: Path) -> None:
    tree = flatten(
        tmp_path,
        folder("d/") + member("d/a", b"1") + member("d/b", b"1") + member("f", b"1"),
        member("d/a", b"2") + folder("f/") + member("f/x", b"2"),
    )
    assert shape(tree) == {"d": "/", "d/a": "2", "d/b": "1", "f": "/", "f/x": "2"}


def test_a_file_replaces_a_folder_and_all_in_it(tmp_path: Path) -> None:
    tree = flatten(tmp_path, folder("d/") + member("d/a", b"1"), member("d", b"2"))
    assert shape(tree) == {"d": "2"}


@pytest.mark.parametrize("first", [True, False])
def test_whiteouts_hide_lower_layers_only_wherever_they_stand(tmp_path: Path, first: bool) -> None:
    mark = member("d/.wh.x")
    fresh = folder("d/x/") + member("d/x/new", b"2")
    tree = flatten(
        tmp_path,
        folder("d/") + folder("d/x/") + member("d/x/old", b"1") + member("d/y", b"1"),
        mark + fresh if first else fresh + mark,
    )
    assert shape(tree) == {"d": "/", "d/x": "/", "d/x/new": "2", "d/y": "1"}


@pytest.mark.parametrize("first", [True, False])
def test_opaque_whiteouts_hide_lower_layers_only(tmp_path: Path, first: bool) -> None:
    mark = member("d/.wh..wh..opq")
    fresh = member("d/new", b"2") + folder("d/s/") + member("d/s/new", b"2")
    tree = flatten(
        tmp_path,
        folder("d/") + member("d/old", b"1") + folder("d/s/") + member("d/s/old", b"1"),
        mark + fresh if first else fresh + mark,
    )
    assert shape(tree) == {"d": "/", "d/new": "2", "d/s": "/", "d/s/new": "2"}


def test_a_whiteout_of_what_is_not_there_does_nothing(tmp_path: Path) -> None:
    assert shape(flatten(tmp_path, member("a", b"1"), member(".wh.b") + member("c/.wh.d"))) == {
        "a": "1"
    }


def test_a_whiteout_takes_one_name_of_a_hard_link(tmp_path: Path) -> None:
    tree = flatten(tmp_path, member("a", b"1") + hardlink("b", "a"), member(".wh.a"))
    assert shape(tree) == {"b": "1"}


def test_hard_links_may_name_a_lower_layer(tmp_path: Path) -> None:
    tree = flatten(tmp_path, member("a", b"1"), hardlink("b", "a") + member("c", b"2"))
    assert shape(tree) == {"a": "1", "b": "1", "c": "2"}


def test_refuses_a_symbolic_link_as_a_folder(tmp_path: Path) -> None:
    escape = symlink("d", "/etc") + member("d/passwd", b"evil")
    refused(tmp_path, "layer 0: member 'd/passwd' has 'd' as its folder, a symbolic link", escape)
    refused(tmp_path, "layer 1: member 'd/x'", symlink("d", "/etc"), member("d/x", b"evil"))
    refused(tmp_path, "as its folder, a file", member("d", b""), member("d/x", b""))


def test_refuses_a_chain_of_links(tmp_path: Path) -> None:
    chain = symlink("a", "..") + symlink("b", "a/..") + folder("b/c/")
    refused(tmp_path, "symbolic link", chain)


@pytest.mark.parametrize("target", ["missing", "s", "d"])
def test_refuses_hard_links_to_what_is_no_file(tmp_path: Path, target: str) -> None:
    layer = symlink("s", "/etc/passwd") + folder("d/") + hardlink("l", target)
    refused(tmp_path, "member 'l' is a hard link to", layer)


def test_refuses_members_that_come_twice(tmp_path: Path) -> None:
    twice = "in the archive twice"
    refused(tmp_path, twice, member("a", b"1") + member("./a", b"2"))
    refused(tmp_path, twice, symlink("a", "b") + symlink("a", "c"))
    refused(tmp_path, twice, member("a", b"1") + folder("a/"))
    refused(tmp_path, twice, folder("a/") + member("a/b", b"") + member("a", b"1"))
    refused(tmp_path, twice, folder("a/", 0o755) + folder("a/", 0o700))
    refused(tmp_path, twice, member("a", b"1") + hardlink("a", "a"))


def test_takes_a_folder_that_comes_twice_and_says_the_same(tmp_path: Path) -> None:
    assert shape(flatten(tmp_path, folder("a/") + member("a/b", b"1") + folder("a/"))) == {
        "a": "/",
        "a/b": "1",
    }


def test_limits_count_over_all_layers(tmp_path: Path) -> None:
    layers = (member("a", bytes(3000)), member("b", bytes(3000)))
    (tmp_path / "one").mkdir()
    with pytest.raises(ArchiveError, match="layer 1: expands to more than"):
        flatten(tmp_path / "one", *layers, limits=Limits(expanded=7000))
    (tmp_path / "two").mkdir()
    with pytest.raises(ArchiveError, match="layer 1: has more than 1 members"):
        flatten(tmp_path / "two", layers[0], layers[1] + member("c"), limits=Limits(members=2))


def test_reports_what_it_stripped(tmp_path: Path) -> None:
    with new(tmp_path) as flattener:
        flattener.add((member("bin/su", b"x", mode=0o4755) + END,), what="layer")
        flattener.write(tmp_path / "tree")
    assert flattener.stripped == ["bin/su"]
    assert (tmp_path / "tree/bin/su").stat().st_mode & 0o7777 == 0o755


def test_takes_an_unpacked_layer_with_the_whiteouts_of_overlayfs(tmp_path: Path) -> None:
    upper = tmp_path / "upper"
    (upper / "d").mkdir(parents=True)
    (upper / "d" / "new").write_text("2")
    (upper / "link").hardlink_to(upper / "d" / "new")
    os.setxattr(upper / "d", "trusted.overlay.opaque", b"y")
    os.mknod(upper / "gone", 0o020600, os.makedev(0, 0))
    lower = folder("d/") + member("d/old", b"1") + member("gone", b"1") + member("kept", b"1")
    with new(tmp_path) as flattener:
        flattener.add((lower + END,), what="lower")
        flattener.add_folder(upper, what="upper")
        flattener.write(tmp_path / "tree")
    assert shape(tmp_path / "tree") == {"d": "/", "d/new": "2", "kept": "1", "link": "2"}


@pytest.mark.parametrize("kind", ["fifo", "device", "socket"])
def test_refuses_an_unpacked_layer_with_what_is_no_file(tmp_path: Path, kind: str) -> None:
    # CVE-2024-29068: a FIFO in a squashfs image makes its reader hang.
    upper = tmp_path / "upper"
    upper.mkdir()
    modes = {"fifo": 0o010600, "device": 0o020600, "socket": 0o140600}
    os.mknod(upper / "x", modes[kind], os.makedev(1, 5) if kind == "device" else 0)
    with (
        new(tmp_path) as flattener,
        pytest.raises(ArchiveError, match=r"upper: member '\./x' is"),
    ):
        flattener.add_folder(upper, what="upper")
