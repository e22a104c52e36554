"""Building as a user who has nothing but subordinate ids."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import pytest

from machineos.core.run import find, run
from unit.build.ordinary import REPOSITORY, as_user, mosb, user
from unit.build.tarmaker import END, extended, folder, member, record, symlink
from waiting import PATIENCE

pytestmark = [
    pytest.mark.system,
    pytest.mark.tool("busybox"),
    pytest.mark.tool("mksquashfs"),
    pytest.mark.tool("mkfs.erofs"),
    pytest.mark.tool("newuidmap"),
    pytest.mark.tool("slirp4netns"),
]

RECIPE = """\
base:
  build_only: true
  from: {type: tar, url: base.tar}
web:
  from: {type: built, tag: base}
  import: [hello, {path: other, dest: /etc/, uid: 7, gid: 8, mode: "0600"}]
  run: |
    #!/bin/sh -e
    cat /stacker/imports/hello > /made
    touch /a /b
    chown 33:34 /a
    chown 1000:65534 /b
    chmod 4750 /a
    echo to a terminal that is none > /dev/stderr
"""


def prepare(place: Path) -> None:
    busybox = Path(str(find("busybox"))).read_bytes()
    capable = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
    data = folder("./", uid=0, gid=0) + folder("bin/", uid=0, gid=0)
    data += member("bin/busybox", busybox, mode=0o755, uid=0, gid=0)
    for name in ("sh", "cat", "touch", "chown", "chmod"):
        data += symlink(f"bin/{name}", "busybox")
    data += extended(b"x", record("SCHILY.xattr.security.capability", capable))
    data += member("bin/capable", b"x", mode=0o755, uid=0, gid=0)
    (place / "base.tar").write_bytes(data + END)
    (place / "hello").write_text("hi ")
    (place / "other").write_text("ho ")
    (place / "stacker.yaml").write_text(RECIPE)
    for path in place.iterdir():
        path.chmod(0o644)


def digest_as_root(place: Path, *options: str) -> str:
    program = str(REPOSITORY / ".venv/bin/mosb")
    argv = [program, "image", "build", "--cache", "cache", *options, "--json"]
    return str(json.loads(run(argv, cwd=place, timeout=PATIENCE).text))


@pytest.mark.parametrize("kind", ["squashfs", "erofs"])
def test_a_user_builds_what_root_builds(tmp_path: Path, kind: str) -> None:
    (tmp_path / "root").mkdir()
    prepare(tmp_path / "root")
    prepare(user(tmp_path))
    options = ("--layer-type", kind)
    built = as_user(tmp_path, *mosb("image", "build", *options, "--json"))
    assert str(json.loads(built.text)) == digest_as_root(tmp_path / "root", *options)
    # What it made besides trees is its own, not that of some id.
    blobs = tmp_path / "home/oci/blobs/sha256"
    assert {path.stat().st_uid for path in blobs.iterdir()} == {54321}
    (tree,) = (tmp_path / "home/.cache/machineos/image").glob("stages-700000/*/tree/a")
    assert (tree.stat().st_uid, tree.stat().st_gid) == (700033, 700034)


def test_a_squashfs_of_anybody_is_packed_again_without_subordinate_ids(tmp_path: Path) -> None:
    """It is taken apart in a container with one id, which is enough to see all of it."""
    (tmp_path / "root").mkdir()
    prepare(tmp_path / "root")
    digest_as_root(tmp_path / "root")
    home = user(tmp_path, subuid="nobody:1:65536")
    shutil.copytree(tmp_path / "root/oci", home / "a")
    as_user(tmp_path, *mosb("image", "convert", "oci:a:web", "--tag", "t", "--layout", "oci:b"))
    listed = as_user(
        tmp_path, "sh", "-c", "sqfs2tar $(ls -S b/blobs/sha256/* | head -n 1) | tar -tvf -"
    )
    rows = [line.split() for line in listed.text.splitlines()]
    owners = {row[-1]: row[1] for row in rows}
    assert (owners["a"], owners["b"], owners["etc/other"]) == ("33/34", "1000/65534", "7/8")


def test_converting_what_takes_a_folder_of_files(tmp_path: Path) -> None:
    prepare(user(tmp_path))
    as_user(tmp_path, *mosb("image", "build", "--layout", "oci:a"))
    convert = ("image", "convert", "oci:a:web", "--layer-type", "erofs", "--tag", "web")
    as_user(tmp_path, *mosb(*convert, "--layout", "oci:b"))
    assert (tmp_path / "home/b/index.json").is_file()


@pytest.mark.parametrize(
    ("subuid", "subgid", "said"),
    [
        ("root:1:65536", "tester:1:65536", "/etc/subuid gives the user tester none"),
        ("tester:1:65536", "x:900000:65536", "/etc/subgid gives the user tester none"),
        ("tester:1:65535", "", "/etc/subuid gives the user tester none"),
    ],
)
def test_without_subordinate_ids_it_says_what_to_do(
    tmp_path: Path, subuid: str, subgid: str, said: str
) -> None:
    prepare(user(tmp_path, subuid=subuid, subgid=subgid))
    result = as_user(tmp_path, *mosb("image", "build"), success=(2,))
    assert said in result.complaint
    assert "sudo usermod --add-subuids " in result.complaint
    assert "-" in result.complaint.partition("--add-subgids ")[2]
