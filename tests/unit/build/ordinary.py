"""An ordinary user for a test: in a mount namespace where ``/etc`` knows it, and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.core.run import run
from waiting import PATIENCE

if TYPE_CHECKING:
    from machineos.core.command import Result

REPOSITORY = Path(__file__).resolve().parents[3]
UID = 54321
# Where the user sees this repository and its own folder: both may be root's alone.
CODE, HOME = Path("/srv"), Path("/media")
_ENTER = """\
set -e
for name in passwd group subuid subgid; do mount --bind "$1/etc/$name" "/etc/$name"; done
mount --bind "$2" /srv
mount --bind "$1/home" /media
cd /media
shift 2
exec setpriv --reuid 54321 --regid 54321 --clear-groups "$@"
"""


def user(folder: Path, *, subuid: str = "tester:700000:65536", subgid: str = "") -> Path:
    """Make what ``as_user`` needs in ``folder``; return the user's folder, as root sees it."""
    (folder / "etc").mkdir()
    known = {"passwd": f"tester:x:{UID}:{UID}::/media:/bin/sh", "group": f"tester:x:{UID}:"}
    for name, line in known.items():
        (folder / "etc" / name).write_text(f"{Path('/etc', name).read_text()}{line}\n")
    (folder / "etc/subuid").write_text(f"{subuid}\n")
    (folder / "etc/subgid").write_text(f"{subgid or subuid}\n")
    home = folder / "home"
    home.mkdir(mode=0o700)
    os.chown(home, UID, UID)
    return home


def as_user(folder: Path, *argv: str, success: tuple[int, ...] = (0,)) -> Result:
    """Run a command as the user that ``user`` made in ``folder``, in its folder."""
    return run(
        ["unshare", "--mount", "sh", "-c", _ENTER, "sh", folder, REPOSITORY, *argv],
        timeout=PATIENCE * 5,
        env={"HOME": str(HOME), "PYTHONPATH": str(CODE / "src")},
        success=success,
    )


def mosb(*arguments: str) -> tuple[str, ...]:
    """The command ``mosb``, as the user has it."""
    program = "from machineos.cli.developer.mosb import main; main()"
    return (str(CODE / ".venv/bin/python"), "-c", program, *arguments)
