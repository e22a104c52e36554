from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from machineos.core.idrange import FIRST_GUEST, LAST_ID, RANGE, IdRange
from machineos.core.serviceid import ServiceId
from machineos.core.word import RootHash
from machineos.document.between.handover import MAX_SIZE, VERSION, encode_handover, parse_handover
from machineos.document.model.names import Label, ServiceName
from machineos.errors import DocumentError

DIGEST = "sha256:" + "a" * 64
LAYER = {"digest": "sha256:" + "d" * 64, "root_hash": "b" * 64, "blob": "/b", "signature": "/s"}


def document(**changes: object) -> dict[str, Any]:
    service = {
        "name": "zot",
        "version": "1.0.0",
        "type": "container",
        "image": DIGEST,
        "config": "sha256:" + "c" * 64,
        "layer": LAYER,
        "network": {"type": "simple", "ports": [{"host": 80, "container": 5000}]},
        "nsgroup": "zot",
        "hostid": 100000,
        "storage": [{"dest": "/data", "label": "blobs"}],
    }
    service.update(changes)
    return {
        "version": 1,
        "generation": "g",
        "product": "p",
        "store": "/store",
        "data": "/data",
        "volumes_key": "5a" * 32,
        "services": [service],
        "volumes": [{"label": "blobs", "persistent": True, "size": 1}],
    }


def test_what_is_written_is_read() -> None:
    assert (VERSION, MAX_SIZE) == (1, 4 << 20)
    handover = parse_handover(json.dumps(document()).encode())
    assert parse_handover(encode_handover(handover)) == handover
    (service,) = handover.services
    assert service.id == ServiceId("zot")
    assert service.ids == IdRange(100000, 65536)
    digests = (service.image_digest, service.config_digest, service.layer.blob_digest)
    assert [str(digest) for digest in digests] == [f"sha256:{each * 64}" for each in "acd"]
    assert service.layer.verity_hash == RootHash("b" * 64)
    assert type(service.layer.verity_hash) is RootHash
    (volume,) = handover.volumes
    assert (volume.name, type(volume.name)) == ("blobs", Label)
    for group in ("", "none"):
        bare = parse_handover(json.dumps(document(nsgroup=group, hostid=0)).encode())
        assert bare.services[0].ids is None


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"name": "../x"}, "services[0].name"),
        ({"name": "a b"}, "services[0].name"),
        ({"image": "sha256:../../x"}, "services[0].image"),
        ({"config": "a" * 64}, "services[0].config"),
        ({"hostid": 0}, "services[0].hostid"),
        ({"hostid": 65535}, "services[0].hostid"),
        ({"hostid": -1}, "services[0].hostid"),
        ({"hostid": LAST_ID - RANGE + 2}, "services[0].hostid"),
        ({"layer": {**LAYER, "digest": "sha256:x"}}, "services[0].layer.digest"),
        ({"layer": {**LAYER, "root_hash": "b" * 63}}, "services[0].layer.root_hash"),
    ],
)
def test_faults_name_their_path(changes: dict[str, Any], path: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_handover(json.dumps(document(**changes)).encode())
    assert [fault.path for fault in caught.value.faults] == [path]


@pytest.mark.parametrize("first", [FIRST_GUEST, LAST_ID - RANGE + 1])
def test_the_outermost_ranges(first: int) -> None:
    (service,) = parse_handover(json.dumps(document(hostid=first)).encode()).services
    assert service.ids == IdRange(first, RANGE)


def test_messages() -> None:
    cases = {
        "1 is among the host's own ids": document(hostid=1),
        f"{LAST_ID} leaves no room for 65536 ids": document(hostid=LAST_ID),
        f"'A B' is not {ServiceName.WHAT}": document(name="A B"),
        "'zot' is the name of services[0] already": {
            **document(),
            "services": document()["services"] * 2,
        },
        "is 2, only 1 is known": {**document(), "version": 2},
    }
    for words, body in cases.items():
        with pytest.raises(DocumentError) as caught:
            parse_handover(json.dumps(body).encode(), name="boot")
        assert words in [fault.message for fault in caught.value.faults]
        assert {fault.line for fault in caught.value.faults} == {0}
        assert str(caught.value).startswith("boot: ")


@given(st.text(st.characters(codec="utf-8"), max_size=40))
@example("..")
@example("../up")
@example("a/b")
@example("/etc")
@example("a\0b")
@example("x" * 300)
@example("blobs")
def test_a_label_of_a_volume_is_one_folder_or_refused(label: str) -> None:
    """It becomes a folder, a volume and a device."""
    volume = {"label": label, "persistent": True, "size": 1}
    data = json.dumps({**document(), "volumes": [volume]}).encode()
    try:
        (found,) = parse_handover(data).volumes
    except DocumentError as error:
        assert [fault.path for fault in error.faults] == ["volumes[0].label"]
        return
    path = PurePosixPath("/data") / found.label
    assert path.parent == PurePosixPath("/data")
    assert path.name == label
    assert label not in {".", ".."}


def test_other_shapes_are_refused() -> None:
    twice = document()
    twice["services"] *= 2
    other = {**document(), "version": 2}
    unknown = {**document(), "extra": 1}
    bodies: tuple[object, ...] = (twice, other, unknown, document(type="hostfs"), [])
    for bad in bodies:
        with pytest.raises(DocumentError):
            parse_handover(json.dumps(bad).encode())
