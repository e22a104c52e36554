"""What an image must be so that a machine can mount it: judged by its manifest alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from machineos.core.digest import Digest
from machineos.document.model.limits import MAX_CONFIG
from machineos.document.rules.rule import Rule
from machineos.errors import DigestError, VerificationError
from machineos.oci.model.atomfs import layer_type_of, root_hash_of
from machineos.oci.model.documents import CONFIG

if TYPE_CHECKING:
    from collections.abc import Iterator

    from machineos.document.model.install import Target
    from machineos.document.rules.rule import Gate
    from machineos.oci.model.documents import Manifest

    Found = Iterator[tuple[str, str]]

_ALL: tuple[Gate, ...] = ("publish", "verify", "install", "boot", "mosd")
# Who reads a configuration: at boot nobody does, and one bad service must not stop the machine.
_READ: tuple[Gate, ...] = ("publish", "verify", "mosd")
_SIGNED: tuple[Gate, ...] = ("verify", "install", "boot")
# How many layers an image has where that is not one. A bootkit's are its boot files, which are the
# first, and the modules of its kernel (docs/adr/0025).
_LAYERS = {"bootkit": 2}
BOOT_FILES = 0


class Named(msgspec.Struct, frozen=True):
    """The bytes of an image manifest and the target of the signed document that names them."""

    target: Target
    data: bytes


class Owned(msgspec.Struct, frozen=True):
    """An image manifest and the name of the service that it is the image of."""

    manifest: Manifest
    service_name: str


def _size(named: Named) -> Found:
    if len(named.data) != named.target.size:
        yield "", f"{len(named.data)} bytes, the manifest says {named.target.size}"


def _digest(named: Named) -> Found:
    found = Digest.of(named.data)
    if found != named.target.image:
        yield "", f"digest is {found}, expected {named.target.image}"


def _config(manifest: Manifest) -> Found:
    if manifest.config.media_type != CONFIG:
        kind = manifest.config.media_type
        yield "", f"is not an image: its configuration is {kind!r:.80}"


def _config_size(manifest: Manifest) -> Found:
    if manifest.config.size > MAX_CONFIG:
        size = manifest.config.size
        yield "", f"its configuration has {size} bytes, at most {MAX_CONFIG} are read"


def _layers(owned: Owned) -> Found:
    found, wanted = len(owned.manifest.layers), layers_of(owned.service_name)
    if found != wanted and wanted == 1:
        yield "", f"has {found} layers, a machine mounts only one"
    elif found != wanted:
        yield "", f"has {found} layers, a {owned.service_name} has {wanted}"


def _layer_type(manifest: Manifest) -> Found:
    for layer in manifest.layers:
        try:
            layer_type_of(layer)
        except VerificationError as error:
            yield "", error.message


def _root_hash(manifest: Manifest) -> Found:
    for layer in manifest.layers:
        try:
            root_hash_of(layer)
        except VerificationError as error:
            yield "", error.message


def layers_of(service_name: str) -> int:
    """Return how many layers the image of this service has."""
    return _LAYERS.get(service_name, 1)


def check_image(manifest: Manifest, name: str, service_name: str) -> None:
    """Raise VerificationError unless it is an image of ``service_name`` that a machine mounts;
    ``name`` says which."""
    for rule in RULES:
        rule.require(manifest, name)
    LAYERS.require(Owned(manifest, service_name), name)


# What the signed document says of the bytes; who signs it writes what is there.
NAMED: tuple[Rule[Named], ...] = (
    Rule(
        "image-size",
        "An image manifest has the size that was signed.",
        _SIGNED,
        _size,
        DigestError,
    ),
    Rule(
        "image-digest",
        "An image manifest has the digest that was signed.",
        _SIGNED,
        _digest,
        DigestError,
    ),
)
CONFIG_SIZE: Rule[Manifest] = Rule(
    "image-config-size",
    f"The configuration of an image has at most {MAX_CONFIG} bytes.",
    _READ,
    _config_size,
)
RULES: tuple[Rule[Manifest], ...] = (
    Rule("image-config", "An image has the configuration of an image.", _ALL, _config),
    Rule(
        "image-layer-type",
        "A layer is a file system that the kernel can check block by block.",
        _ALL,
        _layer_type,
    ),
    Rule(
        "image-root-hash",
        "A layer names its dm-verity root hash, and only one.",
        _ALL,
        _root_hash,
        hint="build or convert the image with mosb: the kernel must be able to check it",
    ),
)
LAYERS: Rule[Owned] = Rule(
    "image-layers",
    "An image has one layer, that of a bootkit two (docs/adr/0003, 0025).",
    _ALL,
    _layers,
    hint="publish it with `mosb manifest publish`, which makes one layer of several; "
    "a bootkit comes from `mosb bootkit build`",
)
