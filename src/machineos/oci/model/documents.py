"""The documents of the OCI image specification 1.1, parsed strictly from bytes.

Owns media types, descriptors, manifests and indexes. Invariant: a parsed manifest has one meaning;
a body that could be read as both a manifest and an index, or whose media type disagrees with the
one it was served under, is refused (CVE-2021-41190).
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from machineos.core.digest import Digest
from machineos.core.jsondoc import parse_json
from machineos.errors import DocumentError, Fault, MachineOSError

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
MANIFEST_TYPES = frozenset({MANIFEST, DOCKER_MANIFEST})
INDEX_TYPES = frozenset({INDEX, DOCKER_INDEX})
_FORMS = {MANIFEST: (MANIFEST_TYPES, "a manifest"), INDEX: (INDEX_TYPES, "an index")}

REF_NAME = "org.opencontainers.image.ref.name"
TITLE = "org.opencontainers.image.title"
VERSION_LABEL = "org.opencontainers.image.version"

MAX_MANIFEST = 4 << 20
MAX_ENTRIES = 10_000
_MAX_BLOB = 1 << 44


class Descriptor(msgspec.Struct, frozen=True, kw_only=True):
    """A content descriptor: what, which digest, how many bytes."""

    media_type: str
    digest: Digest
    size: int
    annotations: dict[str, str] = {}
    artifact_type: str = ""
    data: bytes | None = None
    platform: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object, keys in the order of the specification."""
        result: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.size,
        }
        if self.annotations:
            result["annotations"] = dict(self.annotations)
        if self.data is not None:
            result["data"] = base64.b64encode(self.data).decode()
        if self.platform is not None:
            result["platform"] = self.platform
        if self.artifact_type:
            result["artifactType"] = self.artifact_type
        return result


EMPTY_DESCRIPTOR = Descriptor(media_type=EMPTY, digest=Digest.of(b"{}"), size=2, data=b"{}")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """An image manifest, or an artifact in the form of one."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    artifact_type: str = ""
    subject: Descriptor | None = None
    annotations: dict[str, str] = {}

    def to_bytes(self) -> bytes:
        """Return the manifest as compact JSON, always the same bytes for the same value."""
        body: dict[str, Any] = {"schemaVersion": 2, "mediaType": self.media_type}
        if self.artifact_type:
            body["artifactType"] = self.artifact_type
        body["config"] = self.config.to_json()
        body["layers"] = [layer.to_json() for layer in self.layers]
        if self.subject is not None:
            body["subject"] = self.subject.to_json()
        if self.annotations:
            body["annotations"] = dict(self.annotations)
        return msgspec.json.encode(body)


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """An image index: descriptors of manifests."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: dict[str, str] = {}

    def to_bytes(self) -> bytes:
        """Return the index as compact JSON."""
        body: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "manifests": [entry.to_json() for entry in self.manifests],
        }
        if self.annotations:
            body["annotations"] = dict(self.annotations)
        return msgspec.json.encode(body)


def parse_document(data: bytes, *, name: str, media_type: str = "") -> Manifest | Index:
    """Parse a manifest or an index.

    ``media_type`` is what the transport or the descriptor said; it must agree with the body.
    Raises: DocumentError.
    """
    body = parse_json(data, name=name, limit=MAX_MANIFEST)
    parser = _Parser(name)
    if not isinstance(body, dict):
        raise parser.fault("", "is not a JSON object")
    if body.get("schemaVersion") != 2:
        raise parser.fault("schemaVersion", f"is {body.get('schemaVersion')!r}, only 2 is known")
    if "manifests" not in body:
        return parser.manifest(body, parser.kind(body, media_type, MANIFEST))
    if "layers" in body or "config" in body:
        raise parser.fault("", "is both a manifest and an index")
    return parser.index(body, parser.kind(body, media_type, INDEX))


def parse_manifest(data: bytes, *, name: str, media_type: str = "") -> Manifest:
    """Parse an image manifest. Raises: DocumentError, also for an index."""
    document = parse_document(data, name=name, media_type=media_type)
    if not isinstance(document, Manifest):
        raise DocumentError(name, [Fault("", 0, "is an index where a manifest is needed")])
    return document


def parse_index(data: bytes, *, name: str, media_type: str = "") -> Index:
    """Parse an image index. Raises: DocumentError, also for a manifest."""
    document = parse_document(data, name=name, media_type=media_type)
    if not isinstance(document, Index):
        raise DocumentError(name, [Fault("", 0, "is a manifest where an index is needed")])
    return document


class _Parser:
    """Reads the JSON objects of one document; the path of a value goes into its fault."""

    def __init__(self, name: str) -> None:
        self._name = name

    def fault(self, path: str, message: str) -> DocumentError:
        return DocumentError(self._name, [Fault(path, 0, message)])

    def kind(self, body: dict[str, Any], served: str, usual: str) -> str:
        """Return the media type of a body that has the form of ``usual``; where it is given, here
        or by the transport, it says the same."""
        inner = self._text(body, "mediaType", "") or ""
        if inner and served and inner != served:
            raise self.fault("mediaType", f"is {inner!r}, but it was served as {served!r}")
        found = inner or served or usual
        known, what = _FORMS[usual]
        if found not in known:
            raise self.fault("mediaType", f"is {found!r}, which is not {what}")
        return found

    def manifest(self, body: dict[str, Any], kind: str) -> Manifest:
        layers = self._list(body, "layers", "")
        subject = body.get("subject")
        return Manifest(
            media_type=kind,
            config=self.descriptor(body.get("config"), "config"),
            layers=tuple(self.descriptor(item, f"layers[{i}]") for i, item in enumerate(layers)),
            artifact_type=self._text(body, "artifactType", "") or "",
            subject=None if subject is None else self.descriptor(subject, "subject"),
            annotations=self._annotations(body, ""),
        )

    def index(self, body: dict[str, Any], kind: str) -> Index:
        # As Go writes a list that has nothing in it.
        empty = body.get("manifests", body) is None
        entries = [] if empty else self._list(body, "manifests", "")
        return Index(
            media_type=kind,
            manifests=tuple(
                self.descriptor(item, f"manifests[{i}]") for i, item in enumerate(entries)
            ),
            annotations=self._annotations(body, ""),
        )

    def descriptor(self, body: object, path: str) -> Descriptor:
        if not isinstance(body, dict):
            raise self.fault(path, "is not a descriptor")
        size = body.get("size")
        if type(size) is not int or not 0 <= size <= _MAX_BLOB:
            raise self.fault(f"{path}.size", f"{size!r:.40} is not a size")
        digest = self._digest(body.get("digest"), f"{path}.digest")
        platform = body.get("platform")
        if platform is not None and not isinstance(platform, dict):
            raise self.fault(f"{path}.platform", "is not an object")
        return Descriptor(
            media_type=self._text(body, "mediaType", path) or "",
            digest=digest,
            size=size,
            annotations=self._annotations(body, f"{path}."),
            artifact_type=self._text(body, "artifactType", path) or "",
            data=self._data(body.get("data"), digest, size, f"{path}.data"),
            platform=platform,
        )

    def _digest(self, value: object, path: str) -> Digest:
        if not isinstance(value, str):
            raise self.fault(path, "is missing or not a string")
        try:
            return Digest.parse(value)
        except MachineOSError as error:
            raise self.fault(path, error.message) from error

    def _data(self, value: object, digest: Digest, size: int, path: str) -> bytes | None:
        if value is None:
            return None
        if not isinstance(value, str):
            raise self.fault(path, "is not a string")
        try:
            data = base64.b64decode(value, validate=True)
        except binascii.Error as error:
            raise self.fault(path, "is not base64") from error
        if len(data) != size:
            raise self.fault(path, f"holds {len(data)} bytes, the descriptor says {size}")
        digest.check(data, f"{self._name}: {path}")
        return data

    def _list(self, body: dict[str, Any], key: str, path: str) -> list[Any]:
        value = body.get(key)
        if not isinstance(value, list):
            raise self.fault(f"{path}{key}", "is missing or not a list")
        if len(value) > MAX_ENTRIES:
            raise self.fault(f"{path}{key}", f"has more than {MAX_ENTRIES} entries")
        return value

    def _text(self, body: dict[str, Any], key: str, path: str) -> str | None:
        value = body.get(key)
        if value is not None and (not isinstance(value, str) or len(value) > 4096):
            raise self.fault(f"{path}.{key}".lstrip("."), "is not a string")
        return value

    def _annotations(self, body: dict[str, Any], path: str) -> dict[str, str]:
        value = body.get("annotations")
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
            raise self.fault(f"{path}annotations", "is not an object of strings")
        return dict(value)
