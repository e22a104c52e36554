"""manifest.yaml to the letter: what is left out, what cannot be read, which rule on which line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from machineos.build.publish.publish import load_source
from machineos.build.publish.source import ImageTarget, Mebibytes, Source, parse_source
from machineos.document.model.install import Mount, Network, Port, Storage
from machineos.document.model.limits import MAX_SOURCE
from machineos.errors import DocumentError
from machineos.oci.model.reference import ImageSource

TARGET = {"service_name": "a", "source": "oci:i:a", "version": "1", "service_type": "container"}
BASE = {"version": 1, "product": "p", "targets": [TARGET]}


def parse(document: object) -> Source:
    return parse_source(json.dumps(document).encode())


def said(document: object) -> list[tuple[str, str, str]]:
    """Return path, rule and message of every fault."""
    with pytest.raises(DocumentError) as caught:
        parse(document)
    assert caught.value.name == "manifest.yaml"
    return [(one.path, one.rule, one.message) for one in caught.value.faults]


def test_what_is_not_given_has_its_default() -> None:
    assert parse(BASE) == Source(
        version=1,
        product="p",
        update_type="partial",
        storage=(),
        targets=(
            ImageTarget(
                service_name="a",
                source=ImageSource.parse("oci:i:a"),
                version="1",
                service_type="container",
                network=Network(type="none"),
                nsgroup="a",
            ),
        ),
    )
    nulls = {**TARGET, "network": None, "storage": None, "nsgroup": None, "digest": None}
    assert parse({**BASE, "storage": None, "targets": [nulls]}) == parse(BASE)
    bare = {**TARGET, "network": {}, "storage": []}
    assert parse({**BASE, "targets": [bare]}) == parse(BASE)


def test_all_that_can_be_given() -> None:
    whole = {
        **TARGET,
        "nsgroup": "g",
        "digest": "sha256:" + "a" * 64,
        "size": 7,
        "storage": [{"dest": "/a", "label": "x"}],
        "network": {
            "type": "simple",
            "ipv4": "10.0.3.9/24",
            "ipv6": "fd6d:6f73:3000:3::9/64",
            "ports": [{"host": 1, "container": 2, "protocol": "udp"}, {"host": 1, "container": 3}],
        },
    }
    storage = [{"label": "x", "persistent": True, "nsgroup": "g", "size": "2G"}]
    source = parse({**BASE, "update_type": "complete", "storage": storage, "targets": [whole]})
    assert source.update_type == "complete"
    assert source.storage == (Storage(label="x", persistent=True, nsgroup="g", size=2048),)
    (target,) = source.targets
    assert target.network == Network(
        type="simple",
        ipv4="10.0.3.9/24",
        ipv6="fd6d:6f73:3000:3::9/64",
        ports=(Port(host=1, container=2, protocol="udp"), Port(host=1, container=3)),
    )
    assert (target.nsgroup, target.digest, target.size) == ("g", "sha256:" + "a" * 64, 7)
    assert target.storage == (Mount(dest="/a", label="x"),)
    volatile = parse({**BASE, "storage": [{"label": "x", "size": 1}]})
    assert volatile.storage == (Storage(label="x", persistent=False, nsgroup="", size=1),)


EMPTY = "is missing or empty"


def test_what_is_missing_is_said_in_the_words_of_the_rules() -> None:
    assert said({}) == [
        ("version", "document-version", "is 0, only 1 is known"),
        ("product", "product-name", EMPTY),
        ("targets", "target-some", EMPTY),
    ]
    assert said({**BASE, "targets": [{}]}) == [
        ("targets[0].service_name", "target-name", EMPTY),
        ("targets[0].source", "target-source", EMPTY),
        ("targets[0].version", "target-version", EMPTY),
        ("targets[0].service_type", "target-type", EMPTY),
    ]
    port = {**TARGET, "network": {"type": "simple", "ports": [{}]}}
    assert said({**BASE, "targets": [port]}) == [
        ("targets[0].network.ports[0].host", "port", "0 is not a port (1 to 65535)"),
        ("targets[0].network.ports[0].container", "port", "0 is not a port (1 to 65535)"),
    ]
    assert said({**BASE, "targets": [{**TARGET, "storage": [{}]}]}) == [
        ("targets[0].storage[0].dest", "mount-dest", EMPTY),
        ("targets[0].storage[0].label", "mount-label", EMPTY),
    ]
    assert said({**BASE, "storage": [{}]}) == [
        ("storage[0].label", "storage-label", EMPTY),
        ("storage[0].size", "storage-size", "0 MiB is not between 1 MiB and 16 PiB"),
    ]


def test_a_claim_that_cannot_be_is_refused_and_none_is_none() -> None:
    assert said({**BASE, "targets": [{**TARGET, "digest": "x", "size": 0}]}) == [
        ("targets[0].digest", "target-digest", "'x' is not a digest (algorithm:hex)"),
        (
            "targets[0].size",
            "target-size",
            "0 is not the size of an image manifest (1 to 4194304)",
        ),
    ]
    assert parse({**BASE, "targets": [{**TARGET, "digest": ""}]}).targets[0].digest == ""


def test_a_source_is_named_with_what_is_wrong_with_it() -> None:
    assert said({**BASE, "targets": [{**TARGET, "source": "oci:x"}]}) == [
        (
            "targets[0].source",
            "target-source",
            "'oci:x' names no tag: oci:DIR:TAG or oci:DIR@sha256:...",
        )
    ]


def test_a_name_gives_the_type_that_was_left_out() -> None:
    """So that only its absence is told, and not what would follow from a wrong guess."""
    hostfs = {"service_name": "hostfs", "source": "oci:i:h", "version": "1"}
    assert said({**BASE, "targets": [hostfs]}) == [
        ("targets[0].service_type", "target-type", EMPTY)
    ]


TEXT = """\
version: 1
product: p
storage:
  - label: a
    size: huge
  - label: A
    size: 1
targets:
  - service_name: a
    source: oci:i:a
    version: 1
    service_type: container
    network:
      type: bridge
      ipv4: 10.0.4.9/24
      ports: {a: b}
  - service_name: a
    source: oci:i:a
    version: 1
    service_type: container
    storage: [{dest: x, label: y}]
"""


def test_what_cannot_be_read_is_set_aside_and_the_rest_is_judged() -> None:
    with pytest.raises(DocumentError) as caught:
        parse_source(TEXT.encode(), name="it")
    assert caught.value.name == "it"
    assert [(one.line, one.path, one.rule) for one in caught.value.faults] == [
        (5, "storage[0].size", ""),
        (6, "storage[1].label", "storage-label-once"),
        (14, "targets[0].network.type", ""),
        (15, "targets[0].network.ipv4", "address-inside"),
        (16, "targets[0].network.ports", ""),
        (17, "targets[1].service_name", "target-name-once"),
        (21, "targets[1].storage[0].dest", "mount-dest"),
    ]


def test_what_follows_from_what_could_not_be_read_is_not_told() -> None:
    """A value that is no text is reported as that, and not as missing."""
    text = (
        "version: [1]\nproduct: p\ntargets:\n  - {service_name: [], source: oci:i:a, version: 1}\n"
    )
    with pytest.raises(DocumentError) as caught:
        parse_source(text.encode())
    assert [(one.path, one.rule) for one in caught.value.faults] == [
        ("version", ""),
        ("targets[0].service_name", ""),
        ("targets[0].service_type", "target-type"),
    ]


def test_a_document_that_is_no_mapping_is_that_alone() -> None:
    for text in ("[]", "x", "- a"):
        with pytest.raises(DocumentError) as caught:
            parse_source(text.encode())
        assert [one.path for one in caught.value.faults] == [""]


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("7", 7), (" 7 ", 7), ("1G", 1024), ("1048576B", 1), ("1024K", 1), ("2M", 2)],
)
def test_sizes_in_mebibytes(text: str, size: int) -> None:
    assert Mebibytes.parse(text) == size


@pytest.mark.parametrize("text", ["1K", "1B", "1025K", "1048577B"])
def test_sizes_that_are_no_whole_number_of_them(text: str) -> None:
    with pytest.raises(ValueError, match="is not a whole number of MiB") as caught:
        Mebibytes.parse(text)
    assert str(caught.value) == f"{text!r} is not a whole number of MiB"


@pytest.mark.parametrize("more", [0, 1])
def test_how_large_a_file_may_be(tmp_path: Path, more: int) -> None:
    assert MAX_SOURCE == 1 << 20
    data = json.dumps(BASE).encode()
    path = tmp_path / "manifest.yaml"
    path.write_bytes(data + b" " * (MAX_SOURCE + more - len(data)))
    if not more:
        assert load_source(path) == parse(BASE)
        return
    with pytest.raises(DocumentError, match="is larger than 1048576 bytes"):
        load_source(path)
    with pytest.raises(DocumentError, match="is larger than 1048576 bytes"):
        parse_source(path.read_bytes())
