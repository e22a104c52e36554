"""Building a recipe as an ordinary user, against what root did before the builder had a sandbox.

The older builder is taken from this repository's history, and runs with this environment. The user
exists only in the mount namespace in which it builds.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from bench import debian
from bench.conversion import small
from bench.measure import Sample, alternate, timed
from bench.report import Row, ratio_check
from bench.workspace import TOP
from machineos.core.run import run

if TYPE_CHECKING:
    from bench.workspace import Bench

BEFORE = "5af63d6"
_UID = 54321
_MAIN = "from machineos.cli.developer.mosb import main; main()"
_RECIPE = """\
base:
  build_only: true
  from: {type: tar, url: base.tar}
web:
  from: {type: built, tag: base}
  import: [{path: page, dest: /srv/}]
"""
_RUN = """\
  run: |
    echo made > /srv/made
    chown 33:33 /srv/made /srv/page
"""
# Where the user sees this repository and its own folder: both may be root's alone.
_ENTER = """\
set -e
for name in passwd group subuid subgid; do mount --bind "$1/etc/$name" "/etc/$name"; done
mount --bind "$2" /srv
mount --bind "$1/home" /media
cd /media
shift 2
exec setpriv --reuid 54321 --regid 54321 --clear-groups "$@"
"""


def user(bench: Bench) -> Row:
    """Build a Debian root with a script as a user, and as root by the older builder."""
    archive = small(bench)[0] if bench.quick else debian.archive(bench)
    size = archive.stat().st_size / 1e6
    before = _before(bench)

    def ours() -> Sample:
        place = _place(bench, "recipe-ours", archive)
        argv: list[str | Path] = ["unshare", "--mount", "sh", "-c", _ENTER, "sh", place, TOP]
        build = ["/srv/.venv/bin/python", "-c", _MAIN, "image", "build", "--cache", "cache"]
        return timed(
            [*argv, *build],
            log=bench.log,
            env={"HOME": "/media", "PYTHONPATH": "/srv/src", "PYTHONDONTWRITEBYTECODE": "1"},
        )

    def peer() -> Sample:
        place = _place(bench, "recipe-peer", archive)
        build: list[str | Path] = [
            TOP / ".venv/bin/python",
            "-c",
            _MAIN,
            "image",
            "build",
            "--cache",
            "cache",
        ]
        return timed(
            build,
            log=bench.log,
            env={"HOME": str(place), "PYTHONPATH": str(before), "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=place / "home",
        )

    pairs = alternate(ours, peer, pairs=bench.pairs, warm=bench.warm, say=bench.say)
    for name in ("recipe-ours", "recipe-peer"):
        bench.fresh(name)
    return Row(
        "user",
        f"build a recipe on a base of {size:.0f} MB as an ordinary user",
        f"the same as root, by the builder of {BEFORE}, which had no sandbox to speak of",
        (ratio_check(pairs, 1.1),),
        pairs,
        ("the same recipe, tools and folders, both caches empty",),
    )


def _before(bench: Bench) -> Path:
    """Return the older source."""
    folder = bench.folder / f"before-{BEFORE}"
    if not folder.is_dir():
        work = bench.fresh("before-work")
        work.mkdir()
        archive = work / "src.tar"
        run(
            ["git", "-C", TOP, "-c", f"safe.directory={TOP}", "archive", "-o", archive, BEFORE,
             "src"],
            timeout=60.0,
        )  # fmt: skip
        run(["tar", "-C", work, "-xf", archive], timeout=60.0)
        work.rename(folder)
    return folder / "src"


def _place(bench: Bench, name: str, archive: Path) -> Path:
    """Make the folder of one build: what ``/etc`` says of the user, and his home."""
    place = bench.fresh(name)
    home, etc = place / "home", place / "etc"
    home.mkdir(parents=True)
    etc.mkdir()
    known = {"passwd": f"bench:x:{_UID}:{_UID}::/media:/bin/sh", "group": f"bench:x:{_UID}:"}
    for file, line in known.items():
        (etc / file).write_text(f"{Path('/etc', file).read_text()}{line}\n")
    for file in ("subuid", "subgid"):
        (etc / file).write_text("bench:700000:65536\n")
    shutil.copyfile(archive, home / "base.tar")
    (home / "page").write_text("hello\n")
    (home / "stacker.yaml").write_text(_RECIPE + ("" if bench.quick else _RUN))
    if name == "recipe-ours":
        for path in (home, *home.iterdir()):
            os.chown(path, _UID, _UID)
    return place
