"""What an image must and may have inside to be run: decided from what was seen there. Pure.

The rules are those of the publisher (``document.rules``): where folders have to be, and which user
an image knows. Nothing is ever mounted over a link: it could lead out of the image (CVE-2025-31133,
CVE-2019-5736 and their kin).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from machineos.document.product.image import GROUP, PASSWD, resolve_user
from machineos.document.rules.storage import FOLDERS, KERNEL_FOLDERS, SCRATCH, Tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from machineos.document.model.image import User
    from machineos.document.model.install import Mount
    from machineos.service.plan.host import Inside

RESOLV_CONF = "/etc/resolv.conf"
FILES = (PASSWD, GROUP, RESOLV_CONF)


class Findings(msgspec.Struct, frozen=True):
    """What was found: ``scratch`` are the folders of SCRATCH that are there, ``resolves`` says
    whether a file can be mounted over /etc/resolv.conf."""

    user: User
    scratch: tuple[str, ...]
    resolves: bool


def folders_to_see(mounts: Sequence[Mount]) -> tuple[str, ...]:
    """Return the folders to look at when this is to be mounted."""
    dests = (mount.dest for mount in mounts)
    return tuple(dict.fromkeys((*KERNEL_FOLDERS, *SCRATCH, *dests)))


def judge(inside: Inside, *, mounts: Sequence[Mount], user: str, image: str) -> Findings:
    """Return what is needed of an image, whose name for messages is ``image``.

    Raises: ArchiveError (a folder is missing or a link, or a file), DocumentError (no such user).
    """
    folders, files = dict(inside.folders), dict(inside.files)
    tree = Tree(lambda path: folders[path].problem, tuple(mounts))
    FOLDERS.require(tree, f"image {image}")
    resolv_conf = files[RESOLV_CONF]
    return Findings(
        user=resolve_user(user, lambda path: files[path], image=image),
        scratch=tuple(path for path in SCRATCH if not folders[path].absent),
        # A link there is common (to /run/...) and harmless: the image looks after itself.
        resolves=not resolv_conf.absent and not resolv_conf.problem,
    )
