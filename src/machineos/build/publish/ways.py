"""How the files of an image can be shown: decided from what the machine and the user can do."""

from __future__ import annotations

from typing import Literal

import msgspec

from machineos.errors import MissingError

Way = Literal["kernel", "fuse", "unpacked"]
WAYS: tuple[Way, ...] = ("kernel", "fuse", "unpacked")


class Facts(msgspec.Struct, frozen=True):
    """What this machine and this user can do: mount by the kernel, mount by FUSE."""

    kernel: bool
    fuse: bool


def plan(found: Facts, filesystems: tuple[str, ...], wanted: Way | None) -> Way:
    """Return how to show layers of these file systems. Raises: MissingError (not as ``wanted``)."""
    can: dict[Way, bool] = {
        "kernel": found.kernel,
        "fuse": found.fuse and filesystems == ("squashfs",),
        "unpacked": True,
    }
    if wanted is None:
        return next(way for way in WAYS if can[way])
    if not can[wanted]:
        raise MissingError(
            f"this image cannot be shown by {wanted} here",
            hint="kernel needs root and loop devices, fuse needs squashfuse, fuse3 and an image "
            "with one squashfs layer; unpacked needs only room",
        )
    return wanted
