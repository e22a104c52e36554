"""What the publisher refuses before there is anything that a machine could see."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from machineos.document.rules.rule import Rule
from machineos.errors import DigestError
from machineos.oci.model.atomfs import parse_layer_type

if TYPE_CHECKING:
    from collections.abc import Iterator

    from machineos.core.digest import Digest
    from machineos.oci.model.documents import Manifest

    Found = Iterator[tuple[str, str]]

_CLAIMS = "the digest and size in manifest.yaml are those of the image manifest at the source"


class Claimed(msgspec.Struct, frozen=True):
    """What the author says of an image (nothing: empty, None), and what is at its source."""

    digest: str
    size: int | None
    found_digest: Digest
    found_size: int


class Source(msgspec.Struct, frozen=True):
    """An image as it is at its source, and whether it can be converted."""

    manifest: Manifest
    convertible: bool


def has_tar_layers(manifest: Manifest) -> bool:
    """Whether there is a layer that is not a file system under dm-verity."""
    return any(parse_layer_type(layer.media_type) is None for layer in manifest.layers)


def _digest(claimed: Claimed) -> Found:
    if claimed.digest and claimed.digest != str(claimed.found_digest):
        yield "", f"is {claimed.found_digest}, not {claimed.digest}"


def _size(claimed: Claimed) -> Found:
    if claimed.size is not None and claimed.size != claimed.found_size:
        yield "", f"has {claimed.found_size} bytes, not {claimed.size}"


def _mixed(source: Source) -> Found:
    kinds = {parse_layer_type(layer.media_type) is None for layer in source.manifest.layers}
    if len(kinds) > 1:
        yield "", "mixes tar layers with squashfs or EROFS layers"


def _convertible(source: Source) -> Found:
    if has_tar_layers(source.manifest) and not source.convertible:
        yield "", "has tar layers, which cannot be mounted under dm-verity"


CLAIMS: tuple[Rule[Claimed], ...] = (
    Rule(
        "claim-digest",
        "An image has the digest that manifest.yaml claims.",
        ("publish",),
        _digest,
        DigestError,
        _CLAIMS,
    ),
    Rule(
        "claim-size",
        "An image manifest has the size that manifest.yaml claims.",
        ("publish",),
        _size,
        DigestError,
        _CLAIMS,
    ),
)
SOURCES: tuple[Rule[Source], ...] = (
    Rule(
        "source-mixed",
        "The layers of an image are all archives or all file systems.",
        ("publish",),
        _mixed,
    ),
    Rule(
        "source-convertible",
        "An image of archives can be converted here.",
        ("publish",),
        _convertible,
        hint="convert it first: no converter is at hand here",
    ),
)
