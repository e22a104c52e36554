"""Two faults in one manifest.yaml are both told, and nothing that is no fault.

Each fault is put into a target of its own, or into the same one beside another key.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from machineos.build.publish.source import parse_source
from machineos.errors import DocumentError

Json = dict[str, Any]
Fault = Callable[[Json, Json], object]


def document() -> Json:
    """A good manifest: two containers with all that they may have, and volumes of both."""

    def target(number: int) -> Json:
        return {
            "service_name": f"s{number}",
            "source": "oci:images:a",
            "version": "1",
            "service_type": "container",
            "nsgroup": f"g{number}",
            "network": {
                "type": "simple",
                "ipv4": f"10.0.3.9{number}/24",
                "ports": [{"host": 80 + number, "container": 1}],
            },
            "storage": [{"dest": "/data", "label": f"v{number}"}],
        }

    return {
        "version": 1,
        "product": "p",
        "update_type": "complete",
        "storage": [{"label": f"v{n}", "nsgroup": f"g{n}", "size": 1} for n in (0, 1)],
        "targets": [
            target(0),
            target(1),
            {
                "service_name": "hostfs",
                "source": "oci:images:hostfs",
                "version": "1",
                "service_type": "hostfs",
                "network": {"type": "host"},
            },
        ],
    }


def key(name: str, value: object) -> Fault:
    """A bad value of the target."""
    return lambda target, _volume: target.update({name: value})


def network(name: str, value: object) -> Fault:
    """A bad value of its network."""
    return lambda target, _volume: target["network"].update({name: value})


def port(name: str, value: object) -> Fault:
    """A bad value of its port."""
    return lambda target, _volume: target["network"]["ports"][0].update({name: value})


def mount(name: str, value: object) -> Fault:
    """A bad value of its mount."""
    return lambda target, _volume: target["storage"][0].update({name: value})


def volume(name: str, value: object) -> Fault:
    """A bad value of the volume that it mounts."""
    return lambda _target, volume: volume.update({name: value})


# By the key that each touches: a value that a rule refuses, or one that cannot be read at all.
FAULTS: dict[str, Fault] = {
    "service_name": key("service_name", "../x"),
    "service_name unread": key("service_name", []),
    "source": key("source", "oci:images"),
    "source unread": key("source", {}),
    "version": key("version", "a/b"),
    "version unread": key("version", []),
    "service_type unread": key("service_type", "contianer"),
    "service_type": lambda target, _volume: target.pop("service_type"),
    "nsgroup": key("nsgroup", "a/b"),
    "nsgroup unread": key("nsgroup", []),
    "digest": key("digest", "sha256:0"),
    "digest unread": key("digest", []),
    "size": key("size", 0),
    "size unread": key("size", "big"),
    "type unread": network("type", "bridge"),
    "ipv4": network("ipv4", "10.0.3.9"),
    "ipv4 unread": network("ipv4", {}),
    "ipv6": network("ipv6", "fd00::1/64"),
    "host": port("host", 65536),
    "host unread": port("host", "http"),
    "container": port("container", 0),
    "protocol unread": port("protocol", "sctp"),
    "dest": mount("dest", "data"),
    "dest unread": mount("dest", []),
    "label of a mount unread": mount("label", []),
    "unknown key": key("netwrok", {}),
    "unknown key of a port": port("udp", True),
    "volume size": volume("size", 0),
    "volume size unread": volume("size", "big"),
    "volume persistent unread": volume("persistent", "true"),
    "volume nsgroup unread": volume("nsgroup", []),
    "volume label unread": volume("label", []),
    "volume unknown key": volume("sise", 1),
}


def faults(*made: tuple[str, int]) -> set[tuple[str, str]]:
    """Return what is said of a manifest with these faults, by path."""
    bad = document()
    for name, number in made:
        FAULTS[name](bad["targets"][number], bad["storage"][number])
    try:
        parse_source(json.dumps(bad).encode())
    except DocumentError as error:
        found = [(fault.path, fault.message) for fault in error.faults]
        assert len(found) == len(set(found))
        return set(found)
    return set()


def test_the_document_is_good() -> None:
    parse_source(json.dumps(document()).encode())


@pytest.mark.parametrize("name", FAULTS)
def test_one_fault_is_told_once_and_alone(name: str) -> None:
    assert len(faults((name, 0))) == 1, faults((name, 0))


@pytest.mark.parametrize("name", FAULTS)
def test_none_hides_another_elsewhere(name: str) -> None:
    for other in FAULTS.keys() - {name}:  # twice the same is one more, of the same name
        assert faults((name, 0), (other, 1)) == faults((name, 0)) | faults((other, 1)), other


@pytest.mark.parametrize("name", FAULTS)
def test_none_hides_another_beside_it(name: str) -> None:
    for other in FAULTS:
        if name.split()[0] != other.split()[0]:
            assert faults((name, 0), (other, 0)) == faults((name, 0)) | faults((other, 0)), other
