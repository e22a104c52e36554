"""install.json: byte for byte what seed 002 prints, and strict on what comes in."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.document.product.install import (
    Install,
    Mount,
    Network,
    Port,
    Storage,
    Target,
    parse_install,
)
from machineos.errors import DocumentError

SEED = Install(
    version=1,
    product="default",
    update_type="complete",
    targets=(
        Target(
            service_name="zot",
            version="1.0.0",
            service_type="container",
            network=Network(
                type="simple", ipv4="10.0.3.99/24", ports=(Port(host=80, container=5000),)
            ),
            nsgroup="zot",
            digest="sha256:3f7fe7839527f97a351e3e7790cfa42f85ff89a8b5dfab699812feeddd1c7c04",
            size=7290,
        ),
        Target(
            service_name="hostfs",
            version="v0.0.19.231225",
            service_type="hostfs",
            network=Network(type="host"),
            nsgroup="",
            digest="sha256:95c77628b5ccd1f74fd4538f367800c18a371321731408a29428153b1893d9f9",
            size=7288,
        ),
        Target(
            service_name="bootkit",
            version="1.0.0",
            service_type="fs-only",
            network=Network(type="host"),
            nsgroup="",
            digest="sha256:83f822a13bac8b61b17b36d582030f38c75f631629866d2b02be49514baa5145",
            size=1637,
        ),
    ),
)


def base() -> dict[str, Any]:
    body: dict[str, Any] = json.loads(SEED.to_bytes())
    return body


def refused(body: object) -> list[str]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(DocumentError) as caught:
        parse_install(data)
    assert all(fault.line == 0 for fault in caught.value.faults)  # JSON in one line has none
    return [str(fault) for fault in caught.value.faults]


# What seed 002 prints, without the white space that jq put in. (The digest that the seed shows next
# to it is not that of this text, though its size, 829, is: the text was edited afterwards.)
PRINTED = (
    b'{"version":1,"product":"default","targets":[{"service_name":"zot","version":"1.0.0",'
    b'"service_type":"container","network":{"type":"simple","ipv4":"10.0.3.99/24","ipv6":"",'
    b'"ports":[{"host":80,"container":5000}]},"nsgroup":"zot","digest":'
    b'"sha256:3f7fe7839527f97a351e3e7790cfa42f85ff89a8b5dfab699812feeddd1c7c04","size":7290},'
    b'{"service_name":"hostfs","version":"v0.0.19.231225","service_type":"hostfs","network":'
    b'{"type":"host","ipv4":"","ipv6":"","ports":null},"nsgroup":"","digest":'
    b'"sha256:95c77628b5ccd1f74fd4538f367800c18a371321731408a29428153b1893d9f9","size":7288},'
    b'{"service_name":"bootkit","version":"1.0.0","service_type":"fs-only","network":'
    b'{"type":"host","ipv4":"","ipv6":"","ports":null},"nsgroup":"","digest":'
    b'"sha256:83f822a13bac8b61b17b36d582030f38c75f631629866d2b02be49514baa5145","size":1637}],'
    b'"update_type":"complete"}'
)


def test_the_seeds_document_is_written_byte_for_byte_and_read_back() -> None:
    assert SEED.to_bytes() == PRINTED
    assert len(PRINTED) == 829
    assert parse_install(PRINTED) == SEED


def test_a_target_is_found_by_its_name() -> None:
    assert [SEED.target(one.service_name) for one in SEED.targets] == list(SEED.targets)
    assert SEED.target("absent") is None


def test_the_predecessors_later_form_with_null_storage_is_read() -> None:
    body = base()
    body["storage"] = None
    for target in body["targets"]:
        target["storage"] = None
    assert parse_install(json.dumps(body).encode()) == SEED


def test_a_hand_made_document_with_a_bare_network_is_read() -> None:
    body = base()
    body["targets"] = [body["targets"][1] | {"network": {"type": "host"}, "nsgroup": "none"}]
    install = parse_install(json.dumps(body, indent=2).encode())
    assert install.targets[0].network == Network(type="host")


def test_storage_and_protocol_are_written_only_when_they_say_something() -> None:
    body = base()
    body["storage"] = [{"label": "zot-data", "persistent": True, "nsgroup": "zot", "size": 30720}]
    body["targets"][0]["storage"] = [{"dest": "/zot", "label": "zot-data"}]
    body["targets"][0]["network"]["ports"].append({"host": 80, "container": 53, "protocol": "udp"})
    install = parse_install(json.dumps(body).encode())
    assert install.storage == (
        Storage(label="zot-data", persistent=True, nsgroup="zot", size=30720),
    )
    assert install.targets[0].storage == (Mount(dest="/zot", label="zot-data"),)
    written = install.to_bytes()
    assert parse_install(written) == install
    assert written.count(b"protocol") == 1
    assert list(json.loads(written)) == ["version", "product", "storage", "targets", "update_type"]
    assert list(json.loads(written)["targets"][0])[-3:] == ["digest", "storage", "size"]


@pytest.mark.parametrize("version", [0, 2, -1, None, "1", 1.0, True, [], 10**400])
def test_another_version_is_refused(version: object) -> None:
    refused(base() | {"version": version})


def test_a_later_version_is_named_before_its_unknown_keys() -> None:
    assert refused(base() | {"version": 2, "colour": "red"}) == ["version: is 2, only 1 is known"]


@pytest.mark.parametrize("where", ["", "targets", "network", "ports"])
def test_unknown_keys_are_refused(where: str) -> None:
    body = base()
    first = body["targets"][0]
    place = {
        "": body,
        "targets": first,
        "network": first["network"],
        "ports": first["network"]["ports"][0],
    }[where]
    place["colour"] = "red"
    assert "colour" in refused(body)[0]


@pytest.mark.parametrize("key", ["version", "product", "targets", "update_type"])
def test_missing_keys_are_refused(key: str) -> None:
    body = base()
    del body[key]
    refused(body)


def test_duplicate_keys_are_refused() -> None:
    data = SEED.to_bytes().replace(b'"product":"default"', b'"product":"evil","product":"default"')
    assert "twice" in refused(data)[0]


def test_every_broken_rule_is_reported_at_once() -> None:
    body = base()
    body["targets"][0]["service_name"] = "../../x"
    body["targets"][0]["network"]["ports"][0]["container"] = 65536
    body["targets"][1]["service_type"] = "container"
    body["targets"][2]["size"] = 0
    assert [fault.split(":")[0] for fault in refused(body)] == [
        "targets[0].service_name",
        "targets[0].network.ports[0].container",
        "targets[1].service_type",
        "targets[1].nsgroup",
        "targets[2].size",
    ]


BAD_DIGESTS = [
    "../../x",
    "sha256:../..",
    "sha256:" + "A" * 64,
    "sha256:" + "a" * 63,
    "sha256:" + "a" * 65,
    "sha256:" + "a" * 63 + "\0",
    "sha256:" + "a" * 64 + "\n",
    "sha256:" + "a" * 4096,
    "md5:" + "a" * 32,
    "sha512:" + "a" * 128,
    "a" * 64,
    "",
]


@pytest.mark.parametrize("digest", BAD_DIGESTS)
def test_bad_digests_are_refused(digest: str) -> None:
    body = base()
    body["targets"][0]["digest"] = digest
    assert refused(body)[0].startswith("targets[0].digest")


BAD_NAMES = ["../../x", "..", ".", "-x", "a/b", "a\0b", "a\n", "A", "é", "a" * 64, "a" * 4096, ""]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names_are_refused(name: str) -> None:
    body = base()
    body["targets"][0]["service_name"] = name
    assert refused(body)[0].startswith("targets[0].service_name")


def test_an_empty_list_of_targets_is_refused() -> None:
    assert refused(base() | {"targets": []}) == ["targets: is missing or empty"]


def test_too_large_is_refused() -> None:
    refused(SEED.to_bytes() + b" " * (1 << 20))


def test_too_deep_is_refused() -> None:
    refused(b'{"version":1,"x":' + b"[" * 5000)


@pytest.mark.parametrize("size", [-1, 0, (4 << 20) + 1, 2**31, 2**32 + 1, 10**30])
def test_impossible_sizes_are_refused(size: int) -> None:
    body = base()
    body["targets"][0]["size"] = size
    # beyond 64 bits it is no number of a document at all, whatever key it stands under
    assert ("size" if size < 1 << 64 else "out of range") in refused(body)[0]


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    try:
        install = parse_install(data)
    except DocumentError:
        return
    assert parse_install(install.to_bytes()) == install


@given(st.integers(0, 828), st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_read_as_what_it_says(place: int, bit: int) -> None:
    data = bytearray(SEED.to_bytes())
    data[place] ^= 1 << bit
    try:
        install = parse_install(bytes(data))
    except DocumentError:
        return
    assert install != SEED
