"""The OCI image of a service: its documents checked against the hand-over and understood. Pure.

Follows the OCI image specification, "Image Configuration". The bytes that are hashed are the bytes
that are parsed. Invariant: an ``Image`` has exactly one layer, the one the initrd named.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from machineos.core.digest import Digest
from machineos.core.jsondoc import decode_json
from machineos.errors import DigestError, DocumentError, Fault, MissingError, VerificationError
from machineos.oci.model.atomfs import FilesystemKind, parse_layer_type, root_hash_of
from machineos.oci.model.documents import parse_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from machineos.document.between.handover import Service

MAX_CONFIG = 1 << 20
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


class ImageConfig(msgspec.Struct, frozen=True):
    """How the image wants to be run. ``user`` is as written, to be resolved inside the image."""

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    user: str
    folder: str
    stop_signal: str


class Layer(msgspec.Struct, frozen=True):
    """The one layer: what its descriptor says of it."""

    digest: Digest
    size: int
    media_type: str
    root_hash: str


class Image(msgspec.Struct, frozen=True):
    """A checked image manifest; ``config`` is the digest of its configuration."""

    layer: Layer
    filesystem: FilesystemKind
    config: Digest


class User(msgspec.Struct, frozen=True):
    """Who the first process is, in ids of the container."""

    uid: int
    gid: int
    home: str


def check_blob(data: bytes | None, digest: Digest, *, what: str) -> bytes:
    """Return the bytes of a blob of the store, None being one that is not there.

    Raises: MissingError, DigestError (they are not those that the digest names).
    """
    if data is None:
        raise MissingError(f"{what}: {digest} is not in the store")
    try:
        digest.check(data, what)
    except DigestError as error:
        raise DigestError(error.message, hint="the store is damaged: install again") from error
    return data


def check_manifest(service: Service, data: bytes) -> Image:
    """Return what the image manifest of ``service`` says, which was read as ``data``.

    Raises: VerificationError (it does not say what the hand-over says), DocumentError.
    """
    manifest = parse_manifest(data, name=f"{service.name}: image manifest")
    config = manifest.config.digest
    if str(config) != service.config:
        raise VerificationError(
            f"{service.name}: the image's configuration is {config}, not {service.config}"
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
    root_hash = root_hash_of(layer)
    if (str(layer.digest), root_hash) != (service.layer.digest, service.layer.root_hash):
        raise VerificationError(f"{service.name}: the image's layer is not the one handed over")
    found = Layer(layer.digest, layer.size, layer.media_type, root_hash)
    return Image(found, kind.filesystem, config)


def parse_config(data: bytes, *, name: str) -> ImageConfig:
    """Parse an OCI image configuration. Raises: DocumentError, also when there is no command."""
    inner = decode_json(data, _Config, name=name, limit=MAX_CONFIG).config or _Inner()
    argv = (*(inner.entrypoint or ()), *(inner.cmd or ()))
    env = tuple(inner.env or ())
    faults = [
        *_command_faults(argv, env),
        *_text_faults((*argv, *env, inner.user, inner.folder)),
        *_env_faults(env),
        *_place_faults(inner.folder, inner.signal),
    ]
    if faults:
        raise DocumentError(name, faults)
    return ImageConfig(
        argv=argv,
        env=tuple(_variable(entry) for entry in env),
        user=inner.user,
        folder="/" + inner.folder.strip("/"),
        stop_signal=inner.signal or "SIGTERM",
    )


def resolve_user(text: str, passwd: bytes | None, group: bytes | None, *, image: str) -> User:
    """Return whom ``name|uid[:group|gid]`` means, by the image's own passwd and group files.

    "" is root. A number needs no entry. Raises: DocumentError for a name that the image lacks.
    """
    who, colon, group_text = text.partition(":")
    who = who or "0"
    row = next((row for row in _table(passwd, 7) if who in {row[0], row[2]}), None)
    uid = _number(who)
    if uid is None and row is not None:
        uid = _number(row[2])
    own = _number(row[3]) if row is not None else 0
    gid = _group(group_text, group) if colon else own
    if uid is None or gid is None:
        raise DocumentError(
            f"image {image}",
            [Fault("config.User", 0, f"{text[:80]!r} is not a user and group of the image")],
            hint="use numbers, or add them to the image's /etc/passwd and /etc/group",
        )
    home = row[5] if row is not None and _is_plain_path(row[5]) else "/"
    return User(uid, gid, home)


def _command_faults(argv: tuple[str, ...], env: tuple[str, ...]) -> Iterator[Fault]:
    if not argv or not argv[0]:
        yield Fault("config.Entrypoint", 0, "is empty, and so is Cmd: nothing to run")
    if len(argv) > _MAX_WORDS or len(env) > _MAX_WORDS:
        yield Fault("config", 0, f"has more than {_MAX_WORDS} words")


def _text_faults(words: tuple[str, ...]) -> Iterator[Fault]:
    for word in words:
        if "\0" in word:  # JSON has refused what is not Unicode
            yield Fault("config", 0, f"{word[:80]!r} is not text for a command line")


def _env_faults(env: tuple[str, ...]) -> Iterator[Fault]:
    for index, entry in enumerate(env):
        if not entry.partition("=")[0] or "=" not in entry:
            yield Fault(f"config.Env[{index}]", 0, f"{entry[:80]!r} is not NAME=VALUE")


def _place_faults(folder: str, signal: str) -> Iterator[Fault]:
    if folder and not _is_plain_path(folder):
        yield Fault("config.WorkingDir", 0, f"{folder[:80]!r} is not a plain absolute path")
    if signal and not _SIGNAL.fullmatch(signal):
        yield Fault("config.StopSignal", 0, f"{signal[:40]!r} is not a signal")


def _variable(entry: str) -> tuple[str, str]:
    key, _, value = entry.partition("=")
    return key, value


def _group(text: str, table: bytes | None) -> int | None:
    number = _number(text)
    if number is not None:
        return number
    row = next((row for row in _table(table, 4) if row[0] == text), None)
    return _number(row[2]) if row is not None else None


def _table(data: bytes | None, columns: int) -> list[list[str]]:
    lines = (data or b"").decode("utf-8", "replace").splitlines()
    rows = [line.split(":") for line in lines if not line.startswith("#")]
    return [row for row in rows if len(row) == columns and row[0]]


def _number(text: str) -> int | None:
    if not re.fullmatch(r"[0-9]{1,5}", text):
        return None
    value = int(text)
    return value if value <= _MAX_ID else None


def _is_plain_path(path: str) -> bool:
    names = path.split("/")
    return path.startswith("/") and not {".", ".."} & set(names) and path.isprintable()
