from __future__ import annotations

import json
from typing import Any

import pytest

from machineos.document.between.handover import MAX_SIZE, VERSION, encode_handover, parse_handover
from machineos.errors import DocumentError

DIGEST = "sha256:" + "a" * 64


def document(**changes: object) -> dict[str, Any]:
    service = {
        "name": "zot",
        "version": "1.0.0",
        "type": "container",
        "image": DIGEST,
        "config": DIGEST,
        "layer": {"digest": DIGEST, "root_hash": "b" * 64, "blob": "/b", "signature": "/s"},
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
        "data_device": "/dev/vda4",
        "services": [service],
    }


def test_what_is_written_is_read() -> None:
    assert (VERSION, MAX_SIZE) == (1, 4 << 20)
    handover = parse_handover(json.dumps(document()).encode())
    assert parse_handover(encode_handover(handover)) == handover
    assert handover.services[0].has_namespace


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"name": "../x"}, "services[0].name"),
        ({"name": "a b"}, "services[0].name"),
        ({"image": "sha256:../../x"}, "services[0].image"),
        ({"config": "a" * 64}, "services[0].config"),
        ({"hostid": 0}, "services[0].hostid"),
        ({"hostid": 65535}, "services[0].hostid"),
    ],
)
def test_faults_name_their_path(changes: dict[str, Any], path: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_handover(json.dumps(document(**changes)).encode())
    assert [fault.path for fault in caught.value.faults] == [path]


def test_other_shapes_are_refused() -> None:
    twice = document()
    twice["services"] *= 2
    other = {**document(), "version": 2}
    unknown = {**document(), "extra": 1}
    bodies: tuple[object, ...] = (twice, other, unknown, document(type="hostfs"), [])
    for bad in bodies:
        with pytest.raises(DocumentError):
            parse_handover(json.dumps(bad).encode())
