"""What an install medium holds, by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from machineos.build.media import live
from machineos.build.media.live import Placed
from machineos.build.publish.source import parse_source
from machineos.errors import DocumentError, UsageError


def test_a_published_manifest_by_its_place() -> None:
    placed = live.parse_placed("oci:/a/registry:machine/install:1.0.0")
    assert placed == Placed(Path("/a/registry"), "machine/install", "1.0.0")
    assert placed.reference == "machine/install:1.0.0"
    assert live.parse_placed("") is None


@pytest.mark.parametrize(
    "text", ["oci:", "oci:dir", "oci:dir:name", "oci::name:tag", "oci:dir::tag", "dir:name:tag"]
)
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(DocumentError):
        live.parse_placed(text)


def test_a_manifest_on_a_registry_is_not_put_on_a_medium() -> None:
    with pytest.raises(UsageError, match="is not oci:DIR:PATH:TAG"):
        live.parse_placed("host:5000/machine/install:1.0.0")


def test_the_installers_own_root_is_the_keysets_hostfs_and_bootkit() -> None:
    source = parse_source(live.live_source("default", Path("/k"), "ordinary"), name="live")
    assert [str(target.source) for target in source.targets] == [
        "oci:/k/hostfs/oci:hostfs",
        "oci:/k/bootkit/oci:bootkit-squashfs",
    ]
    debug = live.live_source("default", Path("/k"), "debug-console").decode()
    assert "oci:/k/hostfs-debug-console/oci:hostfs" in debug
    assert "oci:/k/bootkit-debug-console/oci:bootkit-squashfs" in debug
    assert (live.NAME, live.TAG) == ("machine/live", "1")
