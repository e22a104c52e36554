"""Documents that a registry may send: read strictly, each fault with its path."""

from __future__ import annotations

import base64
import json

import pytest

from machineos.core.digest import Digest
from machineos.errors import DigestError, DocumentError
from machineos.oci.model.documents import (
    INDEX,
    MANIFEST,
    MAX_ENTRIES,
    Index,
    parse_document,
    parse_index,
    parse_manifest,
)

BLOB = b"blob"
ONE = {"mediaType": "application/x", "digest": str(Digest.of(BLOB)), "size": len(BLOB)}


def manifest(**changes: object) -> dict[str, object]:
    return {"schemaVersion": 2, "mediaType": MANIFEST, "config": ONE, "layers": [ONE], **changes}


def index(**changes: object) -> dict[str, object]:
    return {"schemaVersion": 2, "mediaType": INDEX, "manifests": [ONE], **changes}


def parse(body: object, media_type: str = "") -> object:
    return parse_document(json.dumps(body).encode(), name="doc", media_type=media_type)


def test_what_is_written_is_read() -> None:
    read = parse(index(annotations={"a": "b"}))
    assert isinstance(read, Index)
    assert parse(json.loads(read.to_bytes())) == read
    inline = {**ONE, "data": base64.b64encode(BLOB).decode(), "platform": {"os": "linux"}}
    found = parse_manifest(json.dumps(manifest(layers=[inline])).encode(), name="doc")
    assert found.layers[0].data == BLOB
    assert found.layers[0].platform == {"os": "linux"}


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ([], "not a JSON object"),
        (manifest(schemaVersion=1), "schemaVersion is 1|only 2 is known"),
        (manifest(manifests=[]), "both a manifest and an index"),
        (manifest(mediaType=INDEX), "not a manifest"),
        (index(mediaType=MANIFEST), "not an index"),
        (manifest(config=None), "config"),
        (manifest(layers={}), "layers"),
        (manifest(layers=[ONE] * (MAX_ENTRIES + 1)), "more than"),
        (manifest(layers=["x"]), r"layers\[0\]"),
        (manifest(subject=[]), "subject"),
        (manifest(artifactType=7), "artifactType"),
        (manifest(artifactType="x" * 5000), "artifactType"),
        (manifest(annotations=[]), "annotations"),
        (manifest(annotations={"a": 1}), "annotations"),
        (index(manifests=7), "manifests"),
        (index(manifests=[{**ONE, "size": True}]), r"manifests\[0\]\.size"),
        (index(manifests=[{**ONE, "size": -1}]), "is not a size"),
        (index(manifests=[{**ONE, "size": 1 << 62}]), "is not a size"),
        (index(manifests=[{**ONE, "digest": 1}]), "missing or not a string"),
        (index(manifests=[{**ONE, "digest": "sha256:../x"}]), r"manifests\[0\]\.digest"),
        (index(manifests=[{**ONE, "platform": []}]), "platform"),
        (index(manifests=[{**ONE, "data": 1}]), "data"),
        (index(manifests=[{**ONE, "data": "%"}]), "not base64"),
        (index(manifests=[{**ONE, "data": "AAAA"}]), "holds 3 bytes"),
    ],
)
def test_a_fault_is_named(body: object, fault: str) -> None:
    with pytest.raises(DocumentError, match=fault):
        parse(body)


def test_inline_data_is_checked_against_its_digest() -> None:
    other = base64.b64encode(b"evil").decode()
    with pytest.raises(DigestError):
        parse(index(manifests=[{**ONE, "data": other}]))


def test_body_and_transport_agree() -> None:
    with pytest.raises(DocumentError, match="served as"):
        parse(manifest(), INDEX)


def test_one_kind_is_not_taken_for_the_other() -> None:
    with pytest.raises(DocumentError, match="an index where a manifest"):
        parse_manifest(json.dumps(index()).encode(), name="doc")
    with pytest.raises(DocumentError, match="a manifest where an index"):
        parse_index(json.dumps(manifest()).encode(), name="doc")
