"""EROFS images, made by ``mkfs.erofs`` (erofs-utils).

Invariant: the same tree and epoch give the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.core.command import Command
from machineos.host.pack.container import LIMITS, Bind, Box, speaking

if TYPE_CHECKING:
    from pathlib import Path

COMPRESSION = "lz4hc"
TIMEOUT = 3600.0
_FIXED_UUID = "6d6f7300-0000-4000-8000-65726f667300"


def argv_make(tree: Path, output: Path, *, epoch: int, owners: bool) -> list[str]:
    """Return the arguments that pack the folder ``tree`` into the new file ``output``, all times
    set to ``epoch`` seconds, all owners to root unless ``owners``.

    The tolerance for shared attributes is set so high that none is shared: their order would follow
    the order of the folder.
    """
    options = (f"-z{COMPRESSION}", f"-T{epoch}", f"-U{_FIXED_UUID}", "-x1000000", "--quiet")
    root = () if owners else ("--all-root",)
    return ["mkfs.erofs", *options, *root, str(output), str(tree)]


def tar_box(image: Path, *, size: int, members: int, owners: bool) -> Box:
    """Return the run that writes the content of ``image`` as a tar archive to standard output.

    ``fsck.erofs`` only writes files: they go to memory, at most ``size`` bytes and ``members``
    files of them; without ``owners``, for a container that has only one, all is root's. Extended
    attributes are lost: before 1.8 it cannot write them.
    """
    keep = "--no-preserve-owner --preserve-perms"
    extract = f"fsck.erofs --extract=/scratch/tree {keep} -d0 /image >&2"
    if owners:
        # It gives each file its owner last, and so takes the set-user-id bit away (chown(2)): the
        # first pass is for the bits alone.
        extract = (
            f"{extract} && cd /scratch/tree && "
            "find . -type f -perm /6000 -printf '%m\\0%p\\0' >/tmp/bits && "
            "cd / && rm -rf /scratch/tree && "
            "fsck.erofs --extract=/scratch/tree --preserve -d0 /image >&2 && "
            "cd /scratch/tree && xargs -0 -r -n2 chmod </tmp/bits"
        )
    script = (
        f"{extract} || {{ "
        "case $(stat -f -c '%a %d' /scratch) in '0 '*|*' 0') "
        "echo 'it expands to more than is allowed' >&2;; esac; "
        "grep -q 'special file' /tmp/said && "
        "echo 'it holds a device, which an image must not hold' >&2; false; } && "
        "tar --directory=/scratch/tree --create --format=gnu --numeric-owner --sort=name ."
    )
    return Box(
        speaking(script),
        binds=(Bind(image, "/image"),),
        scratch=(size, members),
        limits=LIMITS,
        needs=("fsck.erofs", "tar", "stat", "grep", "find", "xargs", "rm", "chmod"),
    )


def view_command(image: Path, tree: Path) -> Command:
    """Return the command that writes the files of ``image`` into the folder ``tree`` for an
    ordinary user to look at."""
    argv = ("fsck.erofs", f"--extract={tree}", "--no-preserve", "--overwrite", "-d0", str(image))
    return Command(argv, TIMEOUT)
