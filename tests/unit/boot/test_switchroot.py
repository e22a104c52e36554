"""Emptying the initrd: everything of it, nothing behind a link or a mount; then the new root."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from machineos.boot.switchroot import _empty
from machineos.core.run import run
from waiting import PATIENCE


def empty(folder: Path, device: int | None = None) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _empty(descriptor, os.fstat(descriptor).st_dev if device is None else device)
    finally:
        os.close(descriptor)


def test_all_of_it_goes_and_nothing_behind_links(tmp_path: Path) -> None:
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep/file").write_text("mine")
    (tree / "a/b/c").mkdir(parents=True)
    (tree / "a/b/c/file").write_text("x")
    (tree / "a/link").symlink_to(outside)
    (tree / "dangling").symlink_to("nowhere")
    os.mkfifo(tree / "fifo")
    (tree / "hard").hardlink_to(outside / "deep/file")
    opened = len(list(Path("/proc/self/fd").iterdir()))
    empty(tree)
    assert list(tree.iterdir()) == []
    assert (outside / "deep/file").read_text() == "mine"
    assert len(list(Path("/proc/self/fd").iterdir())) == opened


def test_what_is_on_another_device_stays(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    empty(tmp_path, Path("/proc").stat().st_dev)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.system
def test_mounts_stay_with_what_is_in_them(tmp_path: Path) -> None:
    """In a mount namespace of its own, with a real file system in the way."""
    (tmp_path / "tree/a/mounted").mkdir(parents=True)
    (tmp_path / "tree/b").mkdir()
    (tmp_path / "tree/b/file").write_text("x")
    code = (
        "import os, sys; from machineos.boot.switchroot import _empty; "
        "fd = os.open(sys.argv[1], os.O_RDONLY); _empty(fd, os.fstat(fd).st_dev); "
        "print(sorted(os.listdir(sys.argv[1])), os.listdir(sys.argv[1] + '/a/mounted'))"
    )
    mounted = tmp_path / "tree/a/mounted"
    script = f'mount -t tmpfs none "{mounted}" && touch "{mounted}/kept" && exec "$@"'
    argv = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-c", code]
    assert run([*argv, tmp_path / "tree"], timeout=PATIENCE).text == "['a'] ['kept']"


SWITCH = """
import os, sys
from pathlib import Path
from machineos.boot.switchroot import switch_root
root = Path(sys.argv[1])
os.chroot(root / "old")
os.chdir("/")
switch_root(Path("/new"), "/init", ("--unit=x.target", "two"))
"""
INIT = """#!/bin/busybox sh
/bin/busybox echo "$0" "$@"
/bin/busybox env
/bin/busybox ls /
"""


@pytest.mark.system
@pytest.mark.tool("busybox")
def test_the_new_root_is_the_root_and_the_old_one_is_empty(tmp_path: Path) -> None:
    """The old root is a mount in a namespace of its own, as the initrd is."""
    old, new = tmp_path / "old", tmp_path / "content"
    for folder in (old, new / "bin"):
        folder.mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, new / "bin/busybox")
    (new / "init").write_text(INIT)
    (new / "init").chmod(0o755)
    script = (
        f'mount -t tmpfs old "{old}" && mkdir "{old}/new" "{old}/rest" && touch "{old}/rest/file" '
        f'&& mount --bind "{new}" "{old}/new" && "$@"; umount "{old}"; echo left:; ls -A "{old}"'
    )
    argv = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-c", SWITCH]
    lines = run([*argv, tmp_path], timeout=PATIENCE).text.splitlines()
    assert lines[0] == "/init --unit=x.target two"
    assert {"container=", "PATH=/usr/sbin:/usr/bin"} <= set(lines)
    assert not [line for line in lines if line.startswith("HOME=")]
    assert lines[-3:] == ["bin", "init", "left:"]
