from __future__ import annotations

import os
from pathlib import Path

from machineos.build.recipe.mountpoints import ALWAYS, add_mount_points


def test_no_time_of_today_stays(tmp_path: Path) -> None:
    """A folder that something is made in gets a new time: it would be in the image."""
    (tmp_path / "tree/var").mkdir(parents=True)
    for folder, when in (("tree/var", 1000), ("tree", 2000)):
        os.utime(tmp_path / folder, (when, when))
    add_mount_points(tmp_path / "tree", ["/srv/data/deep", "/var/lib/x"], epoch=7)
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
    add_mount_points(tree, ["/srv/x", "/../escape", "/a/../../b"], epoch=7)
    assert list(outside.iterdir()) == []
    assert (tree / "etc").read_text() == "a file"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "tree"]
    missing = [place for place in ALWAYS if not os.path.lexists(tree / place.strip("/"))]
    assert missing == ["/var/tmp"]
    assert (tree / "tmp").stat().st_mode & 0o7777 == 0o1777
