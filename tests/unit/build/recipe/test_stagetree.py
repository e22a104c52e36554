from __future__ import annotations

import os
from pathlib import Path

import pytest

from machineos.build.recipe.mountpoints import ALWAYS
from machineos.build.recipe.stagetree import (
    add_mount_points,
    clamp,
    programs,
    remove,
    require_shallow,
    sweep,
)
from machineos.document.rules.programs import Program
from machineos.errors import ArchiveError
from machineos.host.pack.container import Ids
from unit.build.elf import program

ME = Ids(os.getuid(), os.getgid(), 1, 0)


def test_no_time_of_today_stays(tmp_path: Path) -> None:
    """A folder that something is made in gets a new time: it would be in the image."""
    (tmp_path / "tree/var").mkdir(parents=True)
    for folder, when in (("tree/var", 1000), ("tree", 2000)):
        os.utime(tmp_path / folder, (when, when))
    add_mount_points(tmp_path / "tree", ["/srv/data/deep", "/var/lib/x"], epoch=7, ids=ME)
    times = {
        str(path.relative_to(tmp_path)): path.stat().st_mtime
        for path in [tmp_path / "tree", *(tmp_path / "tree").rglob("*")]
    }
    assert times.pop("tree") == 2000
    assert times.pop("tree/var") == 1000
    assert set(times.values()) == {7}


def test_links_are_not_followed_and_what_is_there_stays(tmp_path: Path) -> None:
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    outside.mkdir()
    tree.mkdir()
    (tree / "var").symlink_to(outside)
    (tree / "srv").symlink_to(outside)
    (tree / "etc").write_text("a file")
    add_mount_points(tree, ["/srv/x", "/../escape", "/a/../../b"], epoch=7, ids=ME)
    assert list(outside.iterdir()) == []
    assert (tree / "etc").read_text() == "a file"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "tree"]
    missing = [place for place in ALWAYS if not os.path.lexists(tree / place.strip("/"))]
    assert missing == ["/var/tmp"]
    assert (tree / "tmp").stat().st_mode & 0o7777 == 0o1777


def test_times_after_the_epoch_and_before_1970_become_the_epoch(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    for name, when in (("old", 5), ("even", 7), ("new", 8), ("older", -1)):
        (tree / "d" / name).touch()
        os.utime(tree / "d" / name, (when, when))
    (tree / "link").symlink_to("d/new")
    clamp(tree, 7)
    times = {path.name: path.lstat().st_mtime for path in (tree, *tree.rglob("*"))}
    assert times == {"tree": 7, "d": 7, "old": 5, "even": 7, "new": 7, "older": 7, "link": 7}


def test_programs_are_found_wherever_they_are_and_links_lead_nowhere(tmp_path: Path) -> None:
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    (tree / "a/b").mkdir(parents=True)
    outside.mkdir()
    for place in (tree / "a/b/x", tree / "a/no suffix", outside / "x"):
        place.write_bytes(program(7))
    (tree / "plain").write_bytes(program(6))
    (tree / "text").write_text("text")
    (tree / "empty").touch()
    (tree / "file").symlink_to(outside / "x")
    (tree / "folder").symlink_to(outside)
    os.mkfifo(tree / "fifo")
    (tree / "far").write_bytes(program(7, start=(1 << 64) - 1))
    assert sorted(programs(tree), key=lambda each: each.path) == [
        Program("/a/b/x", 64, "executable"),
        Program("/a/no suffix", 64, "executable"),
        Program("/plain", 64, "plain"),
    ]


def deep(folder: Path, levels: int) -> None:
    """Folders in each other below ``folder``, a file in the last, whatever that makes of a path."""
    folder.mkdir(exist_ok=True)
    place = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("deeper", dir_fd=place)
        inner = os.open("deeper", os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=place))
    os.close(place)


def test_however_deep_a_tree_is_it_is_taken_away_and_nothing_else(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("stays")
    deep(tmp_path / "tree", 2000)
    for name in ("a", "b"):
        deep(tmp_path / "tree" / name, 3)
    (tmp_path / "tree/link").symlink_to(outside)
    (tmp_path / "tree/a/link").symlink_to(outside)
    os.mkfifo(tmp_path / "tree/b/pipe")
    remove(tmp_path / "tree")
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]
    assert (outside / "file").read_text() == "stays"
    (tmp_path / "link").symlink_to(outside)
    with pytest.raises(OSError, match="link"):
        remove(tmp_path / "link")
    assert (outside / "file").exists()


@pytest.mark.parametrize(("levels", "good"), [(127, True), (128, False), (2000, False)])
def test_a_tree_is_as_deep_as_an_image_may_be(tmp_path: Path, levels: int, good: bool) -> None:
    deep(tmp_path / "tree", levels)
    try:
        if good:
            require_shallow(tmp_path / "tree", "web")
            return
        with pytest.raises(ArchiveError, match=r"web: the script left .* more than 128 folders"):
            require_shallow(tmp_path / "tree", "web")
    finally:
        remove(tmp_path / "tree")


def test_no_path_of_a_tree_is_longer_than_the_kernel_takes(tmp_path: Path) -> None:
    """What is below would not be seen."""
    place = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("x" * 255, dir_fd=place)
        inner = os.open("x" * 255, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    os.close(place)
    try:
        with pytest.raises(ArchiveError, match=r"web: the script left .* longer than 4095 bytes"):
            require_shallow(tmp_path, "web")
    finally:
        remove(tmp_path / ("x" * 255))


def test_what_killed_builds_left_is_swept(tmp_path: Path) -> None:
    for name in ("stage-abc", "stages-1000", "downloads"):
        deep(tmp_path / name, 2)
    (tmp_path / "stage-link").symlink_to("downloads")
    (tmp_path / "stage-x.log").write_text("")
    sweep(tmp_path, "stage-")
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["downloads", "stage-link", "stage-x.log", "stages-1000"]
    assert (tmp_path / "downloads/deeper/deeper/file").exists()
