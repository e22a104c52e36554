"""The files of a published target at a folder: verified, read-only, taken away again."""

from __future__ import annotations

import pytest

from machineos.build.publish.showing import facts
from machineos.build.publish.ways import Facts, Way, plan
from machineos.errors import (
    MissingError,
)

SQUASH, BOTH = ("squashfs",), ("squashfs", "squashfs")


@pytest.mark.parametrize(
    ("found", "kinds", "way"),
    [
        (Facts(kernel=True, fuse=True), SQUASH, "kernel"),
        (Facts(kernel=False, fuse=True), SQUASH, "fuse"),
        (Facts(kernel=False, fuse=True), BOTH, "unpacked"),
        (Facts(kernel=False, fuse=True), ("erofs",), "unpacked"),
        (Facts(kernel=False, fuse=False), SQUASH, "unpacked"),
    ],
)
def test_how_it_is_shown(found: Facts, kinds: tuple[str, ...], way: Way) -> None:
    assert plan(found, kinds, None) == way
    assert plan(found, kinds, "unpacked") == "unpacked"


def test_what_cannot_be_had_is_refused() -> None:
    with pytest.raises(MissingError, match="by kernel"):
        plan(Facts(kernel=False, fuse=True), SQUASH, "kernel")
    with pytest.raises(MissingError, match="by fuse"):
        plan(Facts(kernel=True, fuse=True), BOTH, "fuse")


def test_this_machine_can_be_looked_at() -> None:
    assert isinstance(facts().kernel, bool)
