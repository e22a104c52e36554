"""Debian roots as tar archives, made by ``mmdebstrap``.

The mirror is mmdebstrap's own default unless one is given. Invariant: nothing of the run is left
behind, also when it is killed: it lives in its own mount and process namespaces, and its temporary
files in a folder of the caller.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from machineos.core.command import Command
from machineos.host.pack.unshare import argv_isolated

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = "mmdebstrap"
_TIMEOUT = 3600.0


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


def argv_build(suite: Suite, output: Path, *, archives: Path | None = None) -> list[str]:
    """Return the command that writes the root of ``suite`` as the tar file ``output``.

    ``archives`` keeps the downloaded packages between runs. Device nodes are left out: every user
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
    if archives is not None:
        argv += _keep_archives(archives)
    if suite.snapshot:
        argv.append('--aptopt=Acquire::Check-Valid-Until "false"')
    argv += [suite.name, str(output)]
    if suite.mirror:
        path = f"{suite.mirror.rstrip('/')}/{suite.snapshot}".rstrip("/")
        argv.append(path)
    return argv


def build_command(
    suite: Suite, output: Path, *, epoch: int, temporary: Path, archives: Path | None = None
) -> Command:
    """Return the command that writes the root of ``suite`` to ``output``, all times at most
    ``epoch``, in namespaces of its own. Needs root.

    ``temporary`` is a folder for the files of the run; for ``archives`` see ``argv_build``.
    """
    return Command(
        tuple(argv_isolated(argv_build(suite, output, archives=archives))),
        _TIMEOUT,
        env=(("SOURCE_DATE_EPOCH", str(epoch)), ("TMPDIR", str(temporary))),
        cwd=temporary,
    )


def _keep_archives(archives: Path) -> list[str]:
    """Hooks that bring packages of earlier runs in, and take those of this run out.

    apt checks each against the signed index before it uses it, so the folder need not be trusted.
    """
    here = shlex.quote(str(archives))
    inside = '"$1"/var/cache/apt/archives'
    save = f"cp -n {inside}/*.deb {here}/ 2>/dev/null || true"
    return [
        "--skip=download/empty",
        "--skip=essential/unlink",
        f"--setup-hook=mkdir -p {inside}; cp -n {here}/*.deb {inside}/ 2>/dev/null || true",
        f"--extract-hook={save}",
        f"--customize-hook={save}",
    ]
