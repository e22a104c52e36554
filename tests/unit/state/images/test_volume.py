"""Volumes of real layers: where the hash tree is, and what is refused before the kernel sees it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.build.recipe.filesystem import make_layer
from machineos.build.recipe.veritylayer import VerityLayer
from machineos.core.digest import Digest
from machineos.core.run import run
from machineos.errors import DocumentError, VerificationError
from machineos.oci.model.atomfs import NEW_ROOT_HASH, OLD_ROOT_HASH, Layer
from machineos.state.images.volume import image_volume
from waiting import PATIENCE

TOOLS = {"squashfs": "mksquashfs", "erofs": "mkfs.erofs"}


@pytest.fixture(
    scope="module",
    params=[pytest.param(k, marks=[pytest.mark.tool(t), pytest.mark.tool("veritysetup")])
            for k, t in TOOLS.items()],
)  # fmt: skip
def layer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> VerityLayer:
    folder = tmp_path_factory.mktemp("layer")
    (folder / "tree").mkdir()
    for number in range(3):
        text = hashlib.sha512(str(number).encode()).hexdigest() * 300
        (folder / f"tree/file{number}").write_text(text)
    return make_layer(folder / "tree", folder / "layer", kind=request.param, epoch=1)


def test_the_tree_is_where_it_says(layer: VerityLayer) -> None:
    image = image_volume(layer.path, Layer.of(layer.descriptor), signature=b"it")
    volume = image.volume
    assert image.filesystem in layer.media_type
    assert (volume.root_hash, volume.name) == (layer.root_hash, f"{layer.digest.hex}-verity")
    assert volume.signature == b"it"
    offset = volume.superblock.data_blocks * 4096
    argv = ["veritysetup", "verify", f"--hash-offset={offset}", *[str(layer.path)] * 2]
    run([*argv, volume.root_hash], timeout=PATIENCE)


def refused(layer: VerityLayer, path: Path, part: str, **changes: object) -> None:
    descriptor = msgspec.structs.replace(layer.descriptor, **changes)
    with pytest.raises(VerificationError, match=part):
        image_volume(path, Layer.of(descriptor), signature=b"s")


def test_what_is_refused(layer: VerityLayer, tmp_path: Path) -> None:
    """Row 12 of the attacks."""
    copy = tmp_path / "blob"
    data = layer.path.read_bytes()
    copy.write_bytes(data)
    refused(layer, copy, "no verity root hash", annotations={})
    refused(layer, copy, "not a verity root hash", annotations={NEW_ROOT_HASH: "0" * 64})
    refused(layer, copy, "not a verity root hash", annotations={NEW_ROOT_HASH: "AB" * 32})
    two = {NEW_ROOT_HASH: "ab" * 32, OLD_ROOT_HASH: "cd" * 32}
    refused(layer, copy, "annotations differ", annotations=two)
    tar = "application/vnd.oci.image.layer.v1.tar"
    refused(layer, copy, f"'{tar}', not squashfs or EROFS with dm-verity", media_type=tar)
    refused(layer, copy, "cut off", size=layer.data_size)
    copy.write_bytes(data[:50])
    refused(layer, copy, "is not")
    copy.write_bytes(bytes(len(data)))
    refused(layer, copy, "is not")
    copy.write_bytes(b"")
    refused(layer, copy, "is not")


def test_a_link_for_a_blob(layer: VerityLayer, tmp_path: Path) -> None:
    (tmp_path / "blob").symlink_to(layer.path)
    with pytest.raises(DocumentError, match="is a symbolic link"):
        image_volume(tmp_path / "blob", Layer.of(layer.descriptor), signature=b"s")


def test_what_is_no_file_for_a_blob(layer: VerityLayer, tmp_path: Path) -> None:
    """Row 11 of the attacks: a FIFO would hang the boot for ever."""
    os.mkfifo(tmp_path / "blob")
    with pytest.raises(DocumentError, match="is not a regular file"):
        image_volume(tmp_path / "blob", Layer.of(layer.descriptor), signature=b"s")


@given(st.binary(max_size=2048), st.integers(0, 1 << 50), st.booleans())
def test_any_header(
    tmp_path_factory: pytest.TempPathFactory, header: bytes, size: int, squashfs: bool
) -> None:
    """A volume whose tree is inside the file, or a refusal; never anything else."""
    from machineos.oci.model.documents import Descriptor

    folder = tmp_path_factory.getbasetemp()
    magic = b"hsqs" if squashfs else bytes(1024) + b"\xe2\xe1\xf5\xe0"
    (folder / "blob").write_bytes(magic + header)
    kind = "squashfs+zstd+verity" if squashfs else "erofs+zstd"
    descriptor = Descriptor(
        media_type=f"application/vnd.stacker.image.layer.{kind}",
        digest=Digest.of(header),
        size=size,
        annotations={NEW_ROOT_HASH: "ab" * 32},
    )
    try:
        image = image_volume(folder / "blob", Layer.of(descriptor), signature=b"s")
    except VerificationError:
        return
    assert (image.volume.superblock.data_blocks + 1) * 4096 <= size
