"""The deep check finds each kind of damage, and nothing in what is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from machineos.oci.graph.deep import check
from machineos.oci.layout.folder import LayoutRepository
from unit.oci.samples import put_artifact, put_image, put_index

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def layout(tmp_path: Path) -> LayoutRepository:
    return LayoutRepository(tmp_path / "layout", writable=True)


def test_what_is_whole_has_no_damage(layout: LayoutRepository) -> None:
    root = put_index(layout, "multi", "amd64", "arm64")
    put_artifact(layout, root, b"signature")
    put_image(layout, "1.0")
    assert check(layout) == ()


def test_every_flipped_byte_is_found(layout: LayoutRepository) -> None:
    root = put_index(layout, "multi", "amd64", "arm64")
    put_artifact(layout, root, b"signature")
    for path in sorted((layout.path / "blobs/sha256").iterdir()):
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        damage = check(layout)
        path.write_bytes(data)
        if f"sha256:{path.name}" in {str(e.digest) for e in layout.referrers(root.digest)}:
            continue  # a damaged referrer refers to nothing
        assert f"sha256:{path.name}" in {item.object for item in damage}


def test_every_missing_file_is_found(layout: LayoutRepository) -> None:
    image = put_image(layout, "1.0", (b"one", b"two"))
    for path in sorted((layout.path / "blobs/sha256").iterdir()):
        data = path.read_bytes()
        path.unlink()
        damage = check(layout)
        path.write_bytes(data)
        assert [item.object for item in damage] == [f"sha256:{path.name}"]
        assert damage[0].root == "1.0"
    assert check(layout, [str(image.root.digest)]) == ()


def test_a_tag_that_is_not_there(layout: LayoutRepository) -> None:
    put_image(layout, "1.0")
    damage = check(layout, ["2.0"])
    assert [(item.root, item.object) for item in damage] == [("2.0", "2.0")]
