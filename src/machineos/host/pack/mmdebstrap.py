"""Debian roots as tar archives, made by ``mmdebstrap``.

The mirror is mmdebstrap's own default unless one is given. It runs in a container, where it is root
over subordinate ids: the scripts of packages are never root of this machine. Invariant: nothing of
the run is left behind, also when it is killed, but temporary files in a folder of the caller.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from machineos.host.pack.container import PATH, Bind, Box

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = "mmdebstrap"
TIMEOUT = 3600.0
# Where the container sees the folders of a run: in folders that every machine has.
_WORK = "/tmp"  # noqa: S108 (the container's own)
_ARCHIVES = "/mnt"
OUTPUT = "root.tar"


@dataclass(frozen=True, slots=True)
class Suite:
    """What a root is made of. ``snapshot`` is a folder below ``mirror``, for archives by date;
    ``components`` are those of the archive, ``main`` alone when it is empty."""

    name: str
    packages: tuple[str, ...] = ()
    variant: str = "minbase"
    mirror: str = ""
    snapshot: str = ""
    keyring: str = ""
    components: tuple[str, ...] = ()


def argv_build(suite: Suite, *, archives: bool = False) -> list[str]:
    """Return the command that writes the root of ``suite`` as ``OUTPUT`` of its work folder.

    ``archives``: keep the downloaded packages between runs. Device nodes are left out: every user
    of the root mounts its own ``/dev``.
    """
    argv = [
        PROGRAM,
        "--mode=root",
        "--format=tar",
        f"--variant={suite.variant}",
        "--skip=output/dev,output/mknod",
        # mmdebstrap copies these from the host; they would make the result differ between hosts.
        '--customize-hook=rm -f "$1"/etc/resolv.conf "$1"/etc/hostname',
        # dmsetup's own script makes a node there; never in a /dev that is the host's.
        '--customize-hook=mountpoint -q "$1"/dev || rm -rf "$1"/dev/mapper',
    ]
    if suite.packages:
        argv.append(f"--include={','.join(suite.packages)}")
    if suite.components:
        argv.append(f"--components={','.join(suite.components)}")
    if suite.keyring:
        argv.append(f"--keyring={suite.keyring}")
    if archives:
        argv += _keep_archives(_ARCHIVES)
    if suite.snapshot:
        argv.append('--aptopt=Acquire::Check-Valid-Until "false"')
    argv += [suite.name, f"{_WORK}/{OUTPUT}"]
    if suite.mirror:
        path = f"{suite.mirror.rstrip('/')}/{suite.snapshot}".rstrip("/")
        argv.append(path)
    return argv


def build_box(suite: Suite, *, epoch: int, temporary: Path, archives: Path | None = None) -> Box:
    """Return the run that writes the root of ``suite`` to ``OUTPUT`` in the folder ``temporary``,
    all times at most ``epoch``.

    ``archives`` keeps the downloaded packages between runs. Both folders are the container's own.
    """
    binds = [Bind(temporary, _WORK, writable=True)]
    if archives is not None:
        binds.append(Bind(archives, _ARCHIVES, writable=True))
    environment = {
        "PATH": PATH, "LANG": "C.UTF-8", "TZ": "UTC", "HOME": "/nonexistent", "TMPDIR": _WORK,
        "SOURCE_DATE_EPOCH": str(epoch),
    }  # fmt: skip
    return Box(
        tuple(argv_build(suite, archives=archives is not None)),
        root="host",
        binds=tuple(binds),
        network="host",
        environment=tuple(environment.items()),
        folder=_WORK,
        inherit=("http_proxy", "https_proxy", "no_proxy"),
    )


def _keep_archives(archives: str) -> list[str]:
    """Hooks that bring packages of earlier runs in, and take those of this run out.

    apt checks each against the signed index before it uses it, so the folder need not be trusted.
    """
    here = shlex.quote(archives)
    inside = '"$1"/var/cache/apt/archives'
    save = f"cp -n {inside}/*.deb {here}/ 2>/dev/null || true"
    return [
        "--skip=download/empty",
        "--skip=essential/unlink",
        f"--setup-hook=mkdir -p {inside}; cp -n {here}/*.deb {inside}/ 2>/dev/null || true",
        f"--extract-hook={save}",
        f"--customize-hook={save}",
    ]
