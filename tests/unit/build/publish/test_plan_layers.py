"""Publishing ready-made layers: what is looked at before anything is signed."""

from __future__ import annotations

import pytest

from fakes.layers import head_of, tree_of
from fakes.repository import MemoryRepository
from machineos.core.digest import Digest
from machineos.document.model.install import Mount
from machineos.errors import DocumentError, VerificationError
from machineos.oci.model.documents import Descriptor, parse_manifest
from machineos.oci.model.reference import ImageSource
from machineos.oci.model.repository import Repository
from unit.build.publish.test_plan import TAR, Converter, image, plan, wanted

BAD_TREE = head_of(1).ljust(4096, b"\0") + tree_of(2)[:4096]


@pytest.fixture
def images() -> MemoryRepository:
    made = MemoryRepository("images")
    image(made, "zot")
    return made


def test_a_layer_that_is_no_file_system_is_not_signed(images: MemoryRepository) -> None:
    image(images, "zot", b"hsqs, and no more", raw=True)
    with pytest.raises(VerificationError) as caught:
        plan(images)
    layer = Digest.of(b"hsqs, and no more")
    assert caught.value.message == (
        f"target zot (oci:images:zot): layer {layer}: is not a squashfs image"
    )
    assert caught.value.rule == "layer-mountable"


def test_in_a_folder_the_hash_tree_is_looked_for_too(images: MemoryRepository) -> None:
    image(images, "zot", BAD_TREE, raw=True)
    with pytest.raises(VerificationError, match="its hash tree covers 8192 of 4096 bytes"):
        plan(images)
    away = ImageSource.parse("docker://registry.example/zot:1")
    image(images, "1", BAD_TREE, raw=True)
    assert len(plan(images, wanted(source=away)).images) == 1
    image(images, "1", b"hsqs, and no more", raw=True)
    with pytest.raises(VerificationError, match="is not a squashfs image"):
        plan(images, wanted(source=away))


class Folder(MemoryRepository):
    """A repository of whose blobs any part is at hand."""

    def blob_range(self, descriptor: Descriptor, offset: int, size: int) -> bytes:
        return self.blobs[descriptor.digest][offset : offset + size]


def test_in_a_folder_no_layer_is_read_before_it_is_copied() -> None:
    """It is hashed once: when it goes to where it is published."""
    near = Folder("images")
    (layer,) = parse_manifest(near.blobs[image(near, "zot").digest], name="zot").layers
    plan(near)
    assert near.asked
    assert layer.digest not in near.asked
    image(near, "zot", BAD_TREE, raw=True)
    with pytest.raises(VerificationError, match="its hash tree covers 8192 of 4096 bytes"):
        plan(near)


def test_of_what_was_converted_the_head_is_judged(images: MemoryRepository) -> None:
    image(images, "zot", b"tar", kind=TAR)
    assert len(plan(images, converter=Converter(images, layer=BAD_TREE)).images) == 1
    with pytest.raises(VerificationError, match="is not a squashfs image"):
        plan(images, converter=Converter(images, layer=b"hsqs, and no more"))


def test_what_cannot_run_is_not_converted_first(images: MemoryRepository) -> None:
    """A conversion takes minutes; that there is nothing to run is known before."""
    image(images, "zot", b"tar", kind=TAR, run={"Entrypoint": None})

    class Never:
        def convert(
            self, _repository: Repository, reference: str, _mounts: tuple[Mount, ...] | None
        ) -> tuple[Repository, Descriptor]:
            raise AssertionError(reference)

    with pytest.raises(DocumentError, match="nothing to run"):
        plan(images, converter=Never())
