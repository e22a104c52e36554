"""The OCI image of a service: read from the store, checked against the handover, understood.

Follows the OCI image specification, "Image Configuration". The bytes that are hashed are the bytes
that are parsed. Invariant: an ``Image`` has exactly one layer, the one the initrd named, and a
command.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from machineos.core.digest import Digest
from machineos.core.files import read_bounded
from machineos.core.jsondoc import decode_json
from machineos.errors import DigestError, DocumentError, Fault, MissingError, VerificationError
from machineos.oci.model.atomfs import FilesystemKind, parse_layer_type, root_hash_of
from machineos.oci.model.documents import MAX_MANIFEST, parse_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.document.between.handover import Service
    from machineos.oci.model.documents import Descriptor

_MAX_CONFIG = 1 << 20
_MAX_WORDS = 4096
_MAX_ID = 65535
_SIGNAL = re.compile(r"SIG[A-Z0-9+-]{1,12}|[0-9]{1,2}")


class _Inner(msgspec.Struct, frozen=True):
    """The ``config`` object; keys that say nothing about running are left alone."""

    entrypoint: list[str] | None = msgspec.field(default=None, name="Entrypoint")
    cmd: list[str] | None = msgspec.field(default=None, name="Cmd")
    env: list[str] | None = msgspec.field(default=None, name="Env")
    user: str = msgspec.field(default="", name="User")
    folder: str = msgspec.field(default="", name="WorkingDir")
    signal: str = msgspec.field(default="", name="StopSignal")


class _Config(msgspec.Struct, frozen=True):
    config: _Inner | None = None
    architecture: str = ""
    rootfs: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """How the image wants to be run. ``user`` is as written, to be resolved inside the image."""

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    user: str
    folder: str
    stop_signal: str


@dataclass(frozen=True, slots=True)
class Image:
    """A checked image; ``config`` is None for one that is only mounted."""

    layer: Descriptor
    filesystem: FilesystemKind
    config: ImageConfig | None


@dataclass(frozen=True, slots=True)
class User:
    """Who the first process is, in ids of the container."""

    uid: int
    gid: int
    home: str


def load_image(store: Path, service: Service) -> Image:
    """Read manifest and configuration of a service from the OCI layout ``store``.

    Raises: MissingError, DigestError, VerificationError (they do not say what the handover says),
    DocumentError.
    """
    digest = Digest.parse(service.image)
    manifest = parse_manifest(
        _blob(store, digest, MAX_MANIFEST, f"{service.name}: image manifest"),
        name=f"{service.name}: image manifest",
    )
    config_digest = manifest.config.digest
    if str(config_digest) != service.config:
        raise VerificationError(
            f"{service.name}: the image's configuration is {config_digest}, not {service.config}"
        )
    if len(manifest.layers) != 1:
        raise VerificationError(
            f"{service.name}: the image has {len(manifest.layers)} layers, not one",
            hint="mosb squashes every image into one layer when it publishes",
        )
    (layer,) = manifest.layers
    kind = parse_layer_type(layer.media_type)
    if kind is None:
        raise VerificationError(f"{service.name}: layers of type {layer.media_type!r} do not mount")
    if (str(layer.digest), root_hash_of(layer)) != (service.layer.digest, service.layer.root_hash):
        raise VerificationError(f"{service.name}: the image's layer is not the one handed over")
    data = _blob(store, config_digest, _MAX_CONFIG, f"{service.name}: image configuration")
    if service.type == "fs-only":
        return Image(layer, kind.filesystem, None)
    config = parse_config(data, name=f"{service.name}: image configuration")
    return Image(layer, kind.filesystem, config)


def parse_config(data: bytes, *, name: str) -> ImageConfig:
    """Parse an OCI image configuration. Raises: DocumentError, also when there is no command."""
    inner = decode_json(data, _Config, name=name, limit=_MAX_CONFIG).config or _Inner()
    argv = (*(inner.entrypoint or ()), *(inner.cmd or ()))
    faults = []
    if not argv or not argv[0]:
        faults.append(Fault("config.Entrypoint", 0, "is empty, and so is Cmd: nothing to run"))
    if len(argv) > _MAX_WORDS or len(inner.env or ()) > _MAX_WORDS:
        faults.append(Fault("config", 0, f"has more than {_MAX_WORDS} words"))
    faults += [
        Fault("config", 0, f"{word[:80]!r} is not text for a command line")
        for word in (*argv, *(inner.env or ()), inner.user, inner.folder)
        if not _is_text(word)
    ]
    env = []
    for index, entry in enumerate(inner.env or ()):
        key, equals, value = entry.partition("=")
        if not equals or not key:
            faults.append(Fault(f"config.Env[{index}]", 0, f"{entry[:80]!r} is not NAME=VALUE"))
        env.append((key, value))
    if inner.folder and not _is_plain_path(inner.folder):
        message = f"{inner.folder[:80]!r} is not a plain absolute path"
        faults.append(Fault("config.WorkingDir", 0, message))
    if inner.signal and not _SIGNAL.fullmatch(inner.signal):
        message = f"{inner.signal[:40]!r} is not a signal"
        faults.append(Fault("config.StopSignal", 0, message))
    if faults:
        raise DocumentError(name, faults)
    folder = "/" + inner.folder.strip("/")
    return ImageConfig(argv, tuple(env), inner.user, folder, inner.signal or "SIGTERM")


def resolve_user(text: str, passwd: bytes | None, group: bytes | None, *, image: str) -> User:
    """Return whom ``name|uid[:group|gid]`` means, by the image's own passwd and group files.

    "" is root. A number needs no entry. Raises: DocumentError for a name that the image lacks.
    """
    who, colon, group_text = text.partition(":")
    who = who or "0"
    users = _table(passwd, 7)
    row = next((row for row in users if who in {row[0], row[2]}), None)
    uid = _number(who)
    if uid is None:
        uid = _number(row[2]) if row is not None else None
    gid = _number(row[3]) if row is not None else 0
    if colon:
        gid = _number(group_text)
        if gid is None:
            found = next((row for row in _table(group, 4) if row[0] == group_text), None)
            gid = _number(found[2]) if found is not None else None
    if uid is None or gid is None:
        raise DocumentError(
            f"image {image}",
            [Fault("config.User", 0, f"{text[:80]!r} is not a user and group of the image")],
            hint="use numbers, or add them to the image's /etc/passwd and /etc/group",
        )
    home = row[5] if row is not None and _is_plain_path(row[5]) else "/"
    return User(uid, gid, home)


def _blob(store: Path, digest: Digest, limit: int, what: str) -> bytes:
    """Return a blob of the layout, read once and checked."""
    try:
        data = read_bounded(store / "blobs" / digest.algorithm / digest.hex, limit)
    except MissingError as error:
        raise MissingError(f"{what}: {digest} is not in the store {store}") from error
    try:
        digest.check(data, what)
    except DigestError as error:
        raise DigestError(error.message, hint="the store is damaged: install again") from error
    return data


def _table(data: bytes | None, columns: int) -> list[list[str]]:
    lines = (data or b"").decode("utf-8", "replace").splitlines()
    rows = [line.split(":") for line in lines if not line.startswith("#")]
    return [row for row in rows if len(row) == columns and row[0]]


def _number(text: str) -> int | None:
    if not re.fullmatch(r"[0-9]{1,5}", text):
        return None
    value = int(text)
    return value if value <= _MAX_ID else None


def _is_text(word: str) -> bool:
    try:
        return "\0" not in word and bool(word.encode("utf-8") or True)
    except UnicodeEncodeError:
        return False


def _is_plain_path(path: str) -> bool:
    names = path.split("/")
    return path.startswith("/") and not {".", ".."} & set(names) and path.isprintable()
