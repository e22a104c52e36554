"""One rule for which image of an index is for a platform."""

from __future__ import annotations

from typing import Any

import pytest

from machineos.core.digest import Digest
from machineos.errors import MissingError
from machineos.oci.graph.platform import choose
from machineos.oci.model.architecture import architecture
from machineos.oci.model.documents import INDEX, MANIFEST, Descriptor, Index

PC = ("linux", "amd64")


def index_of(*platforms: str | None) -> Index:
    """``os/architecture/variant`` of each entry, None for one that says nothing."""
    entries = []
    for number, text in enumerate(platforms):
        platform: dict[str, Any] | None = None
        if text is not None:
            names = ("os", "architecture", "variant")
            platform = dict(zip(names, text.split("/"), strict=False))
        digest = Digest.of(b"%d" % number)
        entries.append(Descriptor(media_type=MANIFEST, digest=digest, size=1, platform=platform))
    return Index(media_type=INDEX, manifests=tuple(entries))


@pytest.mark.parametrize(
    ("platforms", "chosen"),
    [
        (("linux/arm64", "linux/amd64", "linux/amd64"), 1),
        (("linux/amd64/v3", "linux/amd64/v2", "linux/amd64"), 2),
        (("linux/amd64/v3", "linux/amd64/v1"), 1),
        (("linux/amd64/v3", "linux/amd64/v2"), 1),
        (("linux/amd64/v1", "linux/amd64"), 1),
        (("windows/amd64", "linux/x86_64"), 1),
        (("unknown/unknown", "linux/amd64", "unknown/unknown"), 1),
        ((None,), 0),
        (("linux/arm64", None), 1),
        (("linux/amd64", None), 0),
    ],
)
def test_the_image_for_a_platform(platforms: tuple[str | None, ...], chosen: int) -> None:
    index = index_of(*platforms)
    assert choose(index, PC, "i") == index.manifests[chosen]


@pytest.mark.parametrize(
    ("platforms", "there"),
    [
        (("linux/arm64", "windows/amd64"), "linux/arm64, windows/amd64"),
        ((None, None), "unknown"),
        ((), ""),
    ],
)
def test_there_is_none(platforms: tuple[str | None, ...], there: str) -> None:
    with pytest.raises(MissingError) as caught:
        choose(index_of(*platforms), PC, "i")
    assert caught.value.message == "i: is not there for linux/amd64"
    assert caught.value.hint == f"it is for: {there}"


def test_names_of_architectures() -> None:
    found = [architecture(name) for name in ("x86_64", "X86-64", "aarch64", "riscv64", "amd64")]
    assert found == ["amd64", "amd64", "arm64", "riscv64", "amd64"]
