"""What follows from an image's documents, before a byte of a layer is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from machineos.build.recipe import conversion
from machineos.build.recipe.config import ImageConfig
from machineos.build.recipe.conversion import Conversion, Unpacking
from machineos.build.recipe.member import Limits, Policy
from machineos.build.recipe.tarheader import Facts
from machineos.core.digest import Digest
from machineos.errors import DocumentError
from machineos.oci.model.documents import MANIFEST, Descriptor, Manifest
from vectors.clock import FixedClock

TAR = "application/vnd.oci.image.layer.v1.tar"
SQUASHFS = "application/vnd.stacker.image.layer.squashfs+zstd+verity"
ROOT = Facts(0o755, 0, 0, 0, {})


def entry(kind: str = TAR, **platform: str) -> Descriptor:
    text = f"{kind} {platform}".encode()
    return Descriptor(
        media_type=kind, digest=Digest.of(text), size=len(text), platform=platform or None
    )


def manifest(*layers: Descriptor, artifact_type: str = "") -> Manifest:
    return Manifest(
        media_type=MANIFEST, config=entry("c"), layers=layers, artifact_type=artifact_type
    )


def test_an_image_has_layers_and_is_no_artifact() -> None:
    conversion.require_image(manifest(entry()), "i")
    for odd in (manifest(), manifest(entry(), artifact_type="a/b")):
        with pytest.raises(DocumentError, match="i: is not an image: it is an artifact or has no"):
            conversion.require_image(odd, "i")


def test_the_documents_of_an_image_fit_each_other() -> None:
    one = manifest(entry())
    linux = ImageConfig(architecture="amd64")
    ids = (Digest.of(b"a"),)
    conversion.require_usable(linux, ids, one, "i")
    with pytest.raises(DocumentError) as caught:
        conversion.require_usable(ImageConfig(architecture="amd64", os="plan9"), ids, one, "i")
    (fault,) = caught.value.faults
    assert (fault.path, fault.message) == ("os", "is 'plan9', only linux can be used")
    for wrong in ((), ids * 2):
        with pytest.raises(DocumentError) as caught:
            conversion.require_usable(linux, wrong, one, "i")
        (fault,) = caught.value.faults
        assert fault.path == "rootfs.diff_ids"
        assert fault.message == f"has {len(wrong)} entries for 1 layers"


def test_only_a_single_verity_layer_is_taken_as_it_is() -> None:
    assert conversion.converted_kind(manifest(entry(SQUASHFS))) == "squashfs"
    assert conversion.converted_kind(manifest(entry(SQUASHFS.replace("squashfs", "erofs"))))
    assert conversion.converted_kind(manifest(entry())) is None
    assert conversion.converted_kind(manifest(entry(SQUASHFS), entry(SQUASHFS))) is None


def test_a_stream_will_do_for_a_squashfs_of_the_past_with_an_ordinary_root() -> None:
    why = conversion.why_not_streamed
    assert why("squashfs", ROOT, newest=7, now=7) == ""
    assert why("erofs", ROOT, newest=7, now=7) == "packing erofs"
    assert why("squashfs", ROOT, newest=8, now=7.5) == (
        "an image with a time in the future (8 seconds after 1970)"
    )
    odd = "an image whose root folder is not 0:0 or has attributes"
    for root in (
        Facts(0o755, 1, 0, 0, {}),
        Facts(0o755, 0, 1, 0, {}),
        Facts(0o755, 0, 0, 0, {"user.x": b""}),
    ):
        assert why("squashfs", root, newest=7, now=7) == odd


def test_what_is_asked_for_has_defaults() -> None:
    asked = Conversion(Path("/w"), clock=FixedClock(), epoch=7)
    assert (asked.platform, asked.kind) == (("linux", "amd64"), "squashfs")
    assert (asked.limits, asked.policy) == (Limits(), Policy())
    asked.progress("goes nowhere")
    assert Unpacking(Path("/w")).work == Path("/w")
