"""What an image must and may have inside to be run: decided from what was seen there. Pure.

Nothing is ever mounted over a link: it could lead out of the image (CVE-2025-31133, CVE-2019-5736
and their kin).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from machineos.errors import ArchiveError
from machineos.service.plan.image import User, resolve_user
from machineos.service.plan.model import NEEDED, SCRATCH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from machineos.service.plan.host import Inside, Sight

PASSWD, GROUP, RESOLV_CONF = "/etc/passwd", "/etc/group", "/etc/resolv.conf"
FILES = (PASSWD, GROUP, RESOLV_CONF)


class Findings(msgspec.Struct, frozen=True):
    """What was found: ``scratch`` are the folders of SCRATCH that are there, ``resolves`` says
    whether a file can be mounted over /etc/resolv.conf."""

    user: User
    scratch: tuple[str, ...]
    resolves: bool


def folders_to_see(dests: Sequence[str]) -> tuple[str, ...]:
    """Return the folders to look at when volumes are mounted at ``dests``."""
    return tuple(dict.fromkeys((*NEEDED, *SCRATCH, *dests)))


def judge(inside: Inside, *, dests: Sequence[str], user: str, image: str) -> Findings:
    """Return what is needed of an image, whose name for messages is ``image``.

    Raises: ArchiveError (a folder is missing or a link), DocumentError (no such ``user``).
    """
    folders, files = dict(inside.folders), dict(inside.files)
    for path in NEEDED:
        _require(folders[path], path, image)
    scratch = tuple(path for path in SCRATCH if _present(folders[path], path, image))
    for dest in dests:
        if not is_below(dest, scratch):
            _require(folders[dest], dest, image)
    resolv_conf = files[RESOLV_CONF]
    return Findings(
        user=resolve_user(
            user, _content(files[PASSWD], image), _content(files[GROUP], image), image=image
        ),
        scratch=scratch,
        # A link there is common (to /run/...) and harmless: the image looks after itself.
        resolves=not resolv_conf.absent and not resolv_conf.problem,
    )


def is_below(path: str, folders: Sequence[str]) -> bool:
    """Whether ``path`` is inside one of ``folders``, and so need not be in the image."""
    return any(path.startswith(f"{folder}/") for folder in folders)


def _require(sight: Sight, path: str, image: str) -> None:
    if sight.problem:
        raise ArchiveError(
            f"image {image}: nothing can be mounted at {path}: {sight.problem}",
            hint="the image must have a real folder there",
        )


def _present(sight: Sight, path: str, image: str) -> bool:
    if sight.absent:
        return False
    if sight.problem:
        raise ArchiveError(
            f"image {image}: nothing can be mounted at {path}: {sight.problem}",
            hint="the image must have a real folder there, or nothing",
        )
    return True


def _content(sight: Sight, image: str) -> bytes | None:
    if sight.absent:
        return None
    if sight.problem:
        raise ArchiveError(f"image {image}: {sight.problem}")
    return sight.data
