"""``mosb manifest mount`` and ``unmount`` as a user types them: root, and one who is nobody."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from machineos.core.run import run
from machineos.errors import MissingError, UsageError
from machineos.oci.layout.folder import LayoutRepository
from unit.build.images import put
from unit.build.tarmaker import END, folder, member
from unit.cli.developer.test_mosb_manifest import NAME, Mosb, mosb, prepared, publish
from waiting import PATIENCE

__all__ = ["mosb", "prepared"]
pytestmark = [
    pytest.mark.system,
    pytest.mark.tool("mksquashfs"),
    pytest.mark.tool("veritysetup"),
    pytest.mark.tool("squashfuse"),
    pytest.mark.tool("fusermount3"),
]
TREE = b"".join(
    folder(name) for name in ("proc/", "sys/", "dev/", "tmp/", "run/", "bin/", "var/")
) + member("bin/x", b"x" * 5000, mode=0o755)
CODE = "from machineos.cli.developer.mosb import main; main()"
NOBODY = 65534


@pytest.fixture
def ready(mosb: Mosb) -> Mosb:
    """One service published, whose image is a real one."""
    put(LayoutRepository(mosb.home / "images", writable=True), TREE + END, tag="zot")
    path = mosb.home / "manifest.yaml"
    path.write_text(path.read_text().replace("complete", "partial"))
    publish(mosb, "--skip-bootkit")
    return mosb


def mount(mosb: Mosb, target: str, *more: str) -> str:
    place = str(mosb.home / "place")
    options = ["--project", "snakeoil:default", *mosb.repo]
    return mosb("mount", *options, *more, NAME[1], target, place).stdout


def test_a_target_is_shown_and_taken_away(ready: Mosb) -> None:
    place = ready.home / "place"
    said = mount(ready, "zot")
    assert "shows zot 1.0.0, read-only: mounted by the kernel" in said
    assert f"mosb manifest unmount {place} ends it" in said
    assert (place / "bin/x").read_bytes() == b"x" * 5000
    assert ready("unmount", str(place)).stdout == f"{place} is empty again\n"
    body = json.loads(mount(ready, "zot", "--json", "--way", "unpacked"))
    assert (body["way"], body["verified"], body["folder"]) == ("unpacked", True, str(place))
    assert json.loads(ready("unmount", "--json", str(place)).stdout)["way"] == "unpacked"
    with pytest.raises(MissingError, match="nothing is shown"):
        ready("unmount", str(place))


def test_only_what_is_verified_and_there_is_shown(ready: Mosb) -> None:
    with pytest.raises(MissingError, match="names no target 'web'") as caught:
        mount(ready, "web")
    assert "zot" in caught.value.hint
    with pytest.raises(UsageError, match="whom to believe"):
        ready("mount", *ready.repo, NAME[1], "zot", str(ready.home / "place"))
    assert not (ready.home / "place").exists()


@pytest.mark.parametrize("way", ["fuse", "unpacked"])
def test_an_ordinary_user_sees_the_files(ready: Mosb, way: str) -> None:
    for path in [ready.home, *ready.home.rglob("*")]:
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    for path in ready.home.parents:  # pytest's own are for root alone
        path.chmod(path.stat().st_mode | 0o011)
    place = ready.home / "place"

    def as_nobody(*arguments: str | Path) -> str:
        ids = ["--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
        argv = ["setpriv", *ids, sys.executable, "-B", "-c", CODE, "manifest", *arguments]
        return run(argv, timeout=PATIENCE, env={"HOME": str(ready.home)}).text

    options = ["--project", "snakeoil:default", *ready.repo, "--json"]
    wanted = [] if way == "fuse" else ["--way", way]
    body = json.loads(as_nobody("mount", *options, *wanted, NAME[1], "zot", place))
    assert body["way"] == way
    look = "import os, sys; print(os.listdir(sys.argv[1]), os.access(sys.argv[2], os.W_OK))"
    ids = ["--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
    argv = ["setpriv", *ids, sys.executable, "-c", look, str(place), str(place / "bin/x")]
    said = run(argv, timeout=PATIENCE).text
    assert "'bin'" in said
    assert said.endswith("False")
    as_nobody("unmount", place)
    assert list(place.iterdir()) == []
