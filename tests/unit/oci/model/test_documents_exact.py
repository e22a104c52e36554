"""Documents to the letter: what is written, every fault with its path, both sides of each bound."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from machineos.core.digest import Digest
from machineos.errors import DigestError, DocumentError
from machineos.oci.model.documents import (
    CONFIG,
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    EMPTY_DESCRIPTOR,
    INDEX,
    MANIFEST,
    MAX_ENTRIES,
    MAX_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    parse_document,
    parse_index,
    parse_manifest,
)

DIGEST = Digest.of(b"blob")
ONE = {"mediaType": "application/x", "digest": str(DIGEST), "size": 4}


def manifest(**changes: object) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": MANIFEST, "config": ONE, "layers": [ONE], **changes}


def index(**changes: object) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": INDEX, "manifests": [ONE], **changes}


def parse(body: object, media_type: str = "") -> Manifest | Index:
    return parse_document(json.dumps(body).encode(), name="doc", media_type=media_type)


def fault(body: object, media_type: str = "") -> str:
    """Return what is said of a body, with the path in front."""
    with pytest.raises(DocumentError) as caught:
        parse(body, media_type)
    assert caught.value.name == "doc"
    (found,) = caught.value.faults
    assert found.line == 0  # JSON in one line has none to tell
    return f"{found.path}: {found.message}"


def test_names_on_the_wire() -> None:
    assert MANIFEST == "application/vnd.oci.image.manifest.v1+json"
    assert INDEX == "application/vnd.oci.image.index.v1+json"
    assert CONFIG == "application/vnd.oci.image.config.v1+json"
    assert DOCKER_MANIFEST == "application/vnd.docker.distribution.manifest.v2+json"
    assert DOCKER_INDEX == "application/vnd.docker.distribution.manifest.list.v2+json"
    assert (MAX_MANIFEST, MAX_ENTRIES) == (4 << 20, 10_000)


def test_the_empty_descriptor_is_that_of_the_specification() -> None:
    assert EMPTY_DESCRIPTOR.to_json() == {
        "mediaType": "application/vnd.oci.empty.v1+json",
        "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        "size": 2,
        "data": "e30=",
    }


FULL = Descriptor(
    media_type="application/x",
    digest=DIGEST,
    size=4,
    annotations={"a": "b"},
    artifact_type="application/y",
    data=b"blob",
    platform={"os": "linux"},
)


def test_a_manifest_is_written_in_one_way() -> None:
    whole = Manifest(
        media_type=MANIFEST,
        config=Descriptor(media_type=CONFIG, digest=DIGEST, size=4),
        layers=(FULL,),
        artifact_type="application/z",
        subject=Descriptor(media_type=MANIFEST, digest=DIGEST, size=9),
        annotations={"c": "d"},
    )
    digest = str(DIGEST)
    assert (
        whole.to_bytes()
        == (
            '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",'
            '"artifactType":"application/z","config":{"mediaType":'
            f'"application/vnd.oci.image.config.v1+json","digest":"{digest}","size":4}},'
            f'"layers":[{{"mediaType":"application/x","digest":"{digest}","size":4,'
            '"annotations":{"a":"b"},"data":"YmxvYg==","platform":{"os":"linux"},'
            '"artifactType":"application/y"}],"subject":{"mediaType":'
            f'"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":9}},'
            '"annotations":{"c":"d"}}'
        ).encode()
    )
    assert parse_manifest(whole.to_bytes(), name="doc") == whole
    bare = Manifest(media_type=MANIFEST, config=FULL, layers=())
    assert list(json.loads(bare.to_bytes())) == ["schemaVersion", "mediaType", "config", "layers"]
    assert parse_manifest(bare.to_bytes(), name="doc") == bare


def test_an_index_is_written_in_one_way() -> None:
    whole = Index(media_type=INDEX, manifests=(FULL,), annotations={"c": "d"})
    assert list(json.loads(whole.to_bytes())) == [
        "schemaVersion", "mediaType", "manifests", "annotations",
    ]  # fmt: skip
    assert parse_index(whole.to_bytes(), name="doc") == whole
    bare = Index(media_type=INDEX, manifests=())
    assert list(json.loads(bare.to_bytes())) == ["schemaVersion", "mediaType", "manifests"]
    assert parse_index(bare.to_bytes(), name="doc") == bare


def test_the_media_type_is_that_of_the_body_or_of_the_transport_or_usual() -> None:
    bare = {key: value for key, value in manifest().items() if key != "mediaType"}
    assert parse(bare).media_type == MANIFEST
    assert parse(bare, DOCKER_MANIFEST).media_type == DOCKER_MANIFEST
    assert parse(manifest(mediaType=DOCKER_MANIFEST)).media_type == DOCKER_MANIFEST
    assert parse(manifest(mediaType=None), MANIFEST).media_type == MANIFEST
    listed = {key: value for key, value in index().items() if key != "mediaType"}
    assert parse(listed).media_type == INDEX
    assert parse(listed, DOCKER_INDEX).media_type == DOCKER_INDEX
    assert parse(index(mediaType=DOCKER_INDEX), DOCKER_INDEX).media_type == DOCKER_INDEX


@pytest.mark.parametrize(
    ("body", "served", "said"),
    [
        ([], "", ": is not a JSON object"),
        (manifest(schemaVersion=1), "", "schemaVersion: is 1, only 2 is known"),
        (manifest(schemaVersion="2"), "", "schemaVersion: is '2', only 2 is known"),
        ({}, "", "schemaVersion: is None, only 2 is known"),
        ({**index(), "layers": []}, "", ": is both a manifest and an index"),
        ({**index(), "config": ONE}, "", ": is both a manifest and an index"),
        (manifest(), INDEX, f"mediaType: is {MANIFEST!r}, but it was served as {INDEX!r}"),
        (index(), MANIFEST, f"mediaType: is {INDEX!r}, but it was served as {MANIFEST!r}"),
        (manifest(mediaType=INDEX), "", f"mediaType: is {INDEX!r}, which is not a manifest"),
        (index(mediaType=MANIFEST), "", f"mediaType: is {MANIFEST!r}, which is not an index"),
        (manifest(mediaType=None), INDEX, f"mediaType: is {INDEX!r}, which is not a manifest"),
        (index(mediaType=""), "x", "mediaType: is 'x', which is not an index"),
        (manifest(mediaType=["x"]), "", "mediaType: is not a string"),
        (index(mediaType={}), "", "mediaType: is not a string"),
        ({"schemaVersion": 2}, "", "layers: is missing or not a list"),
        (manifest(layers=None), "", "layers: is missing or not a list"),
        (manifest(config=None), "", "config: is not a descriptor"),
        (manifest(layers=[ONE, "x"]), "", "layers[1]: is not a descriptor"),
        (manifest(subject="x"), "", "subject: is not a descriptor"),
        (manifest(subject={}), "", "subject.size: None is not a size"),
        (index(manifests={}), "", "manifests: is missing or not a list"),
        (index(manifests=[ONE, {}]), "", "manifests[1].size: None is not a size"),
        (manifest(artifactType=7), "", "artifactType: is not a string"),
        (manifest(annotations=[]), "", "annotations: is not an object of strings"),
        (manifest(annotations={"a": 1}), "", "annotations: is not an object of strings"),
        (index(annotations="x"), "", "annotations: is not an object of strings"),
    ],
)
def test_what_is_wrong_with_a_document(body: object, served: str, said: str) -> None:
    assert fault(body, served) == said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"size": None}, ".size: None is not a size"),
        ({"size": True}, ".size: True is not a size"),
        ({"size": 1.0}, ".size: 1.0 is not a size"),
        ({"size": -1}, ".size: -1 is not a size"),
        ({"size": (1 << 44) + 1}, ".size: 17592186044417 is not a size"),
        ({"size": "x" * 100}, f".size: '{'x' * 39} is not a size"),
        ({"digest": None}, ".digest: is missing or not a string"),
        ({"digest": "x"}, ".digest: 'x' is not a digest (algorithm:hex)"),
        ({"mediaType": 1}, ".mediaType: is not a string"),
        ({"artifactType": []}, ".artifactType: is not a string"),
        ({"artifactType": "x" * 4097}, ".artifactType: is not a string"),
        ({"platform": "x"}, ".platform: is not an object"),
        ({"annotations": 1}, ".annotations: is not an object of strings"),
        ({"data": 1}, ".data: is not a string"),
        ({"data": "%"}, ".data: is not base64"),
        ({"data": "AAA"}, ".data: is not base64"),
        ({"data": "AAAA"}, ".data: holds 3 bytes, the descriptor says 4"),
    ],
)
def test_what_is_wrong_with_a_descriptor(change: dict[str, Any], said: str) -> None:
    assert fault(manifest(layers=[ONE, {**ONE, **change}])) == f"layers[1]{said}"
    assert fault(manifest(config={**ONE, **change})) == f"config{said}"


def test_what_a_descriptor_may_leave_out() -> None:
    bare = {"digest": str(DIGEST), "size": 0}
    (read,) = parse_manifest(json.dumps(manifest(layers=[bare])).encode(), name="doc").layers
    assert read == Descriptor(media_type="", digest=DIGEST, size=0)
    nulls = {**bare, "mediaType": None, "annotations": None, "platform": None, "data": None}
    assert parse_manifest(json.dumps(manifest(layers=[nulls])).encode(), name="doc").layers == (
        read,
    )


def test_the_largest_values_of_a_descriptor() -> None:
    most = {**ONE, "size": 1 << 44, "artifactType": "x" * 4096, "platform": {}}
    (read,) = parse_manifest(json.dumps(manifest(layers=[most])).encode(), name="doc").layers
    assert (read.size, len(read.artifact_type), read.platform) == (1 << 44, 4096, {})


def test_how_many_entries_there_may_be() -> None:
    assert len(parse_manifest(
        json.dumps(manifest(layers=[ONE] * MAX_ENTRIES)).encode(), name="doc"
    ).layers) == MAX_ENTRIES  # fmt: skip
    assert (
        fault(manifest(layers=[ONE] * (MAX_ENTRIES + 1))) == "layers: has more than 10000 entries"
    )
    assert fault(index(manifests=[ONE] * (MAX_ENTRIES + 1))) == (
        "manifests: has more than 10000 entries"
    )


def test_how_large_a_document_may_be() -> None:
    data = json.dumps(manifest()).encode()
    padded = parse_document(data + b" " * (MAX_MANIFEST - len(data)), name="doc")
    assert padded == parse_document(data, name="doc")
    with pytest.raises(DocumentError, match=f"doc: is larger than {MAX_MANIFEST} bytes"):
        parse_document(data + b" " * (MAX_MANIFEST + 1 - len(data)), name="doc")


def test_inline_data_has_the_digest_it_says() -> None:
    evil = {**ONE, "data": base64.b64encode(b"evil").decode()}
    with pytest.raises(DigestError, match=r"doc: layers\[0\]\.data: digest is"):
        parse(manifest(layers=[evil]))
    good = {**ONE, "data": base64.b64encode(b"blob").decode()}
    assert parse_manifest(json.dumps(manifest(layers=[good])).encode(), name="d").layers[
        0
    ].data == (b"blob")


def test_one_kind_is_asked_for() -> None:
    for read, body, said in (
        (parse_manifest, index(), "is an index where a manifest is needed"),
        (parse_index, manifest(), "is a manifest where an index is needed"),
    ):
        with pytest.raises(DocumentError) as caught:
            read(json.dumps(body).encode(), name="doc")
        assert caught.value.message == f"doc: {said}"
    for asked, body in ((parse_manifest, manifest()), (parse_index, index())):
        with pytest.raises(DocumentError, match="served as"):
            asked(json.dumps(body).encode(), name="doc", media_type="application/x")
