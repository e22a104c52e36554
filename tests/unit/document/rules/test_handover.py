"""What the initrd may hand to mosd, and that what mosd finds in the store is that."""

from __future__ import annotations

from typing import Any

import pytest

from machineos.core.digest import Digest
from machineos.core.idrange import FIRST_GUEST, LAST_ID, RANGE
from machineos.core.word import RootHash
from machineos.document.model.names import Label, ServiceName
from machineos.document.rules.handover import IMAGE, LABELS, RULES, Handed, Mounted
from machineos.oci.model.atomfs import NEW_ROOT_HASH
from unit.document.rules.test_images import D, image, layer

DIGEST = "sha256:" + "a" * 64


def handed(**changes: object) -> Handed:
    values: dict[str, Any] = {
        "name": "zot",
        "digests": {"image": DIGEST, "config": DIGEST, "layer.digest": DIGEST},
        "root_hash": "b" * 64,
        "nsgroup": "zot",
        "hostid": 65536,
    }
    values |= changes
    return Handed(**values)


def said(**changes: object) -> dict[str, list[tuple[str, str]]]:
    """Return what each rule says of a second service."""
    services = [handed(), handed(**{"name": "other", **changes})]
    found = {one.name: list(one.breaches(services)) for one in RULES}
    return {name: messages for name, messages in found.items() if messages}


def test_what_may_be_handed_over() -> None:
    assert said() == {}
    assert said(nsgroup="", hostid=0) == {}
    assert said(nsgroup="none", hostid=0) == {}


@pytest.mark.parametrize(
    ("changes", "name", "path", "message"),
    [
        ({"name": "../x"}, "handover-name", "name", f"'../x' is not {ServiceName.WHAT}"),
        ({"name": "zot"}, "handover-once", "name", "'zot' is the name of services[0] already"),
        (
            {"digests": {"image": DIGEST, "config": "x"}},
            "handover-digest",
            "config",
            "'x' is not a digest (algorithm:hex)",
        ),
        (
            {"root_hash": "0" * 64},
            "handover-root-hash",
            "layer.root_hash",
            f"'{'0' * 64}' is not a verity root hash",
        ),
        ({"hostid": 65535}, "handover-ids", "hostid", "65535 is among the host's own ids"),
        ({"hostid": 0}, "handover-ids", "hostid", "0 is among the host's own ids"),
        (
            {"hostid": LAST_ID - RANGE + 2},
            "handover-ids",
            "hostid",
            "4294901760 leaves no room for 65536 ids",
        ),
    ],
)
def test_what_may_not(changes: dict[str, Any], name: str, path: str, message: str) -> None:
    assert said(**changes) == {name: [(f"services[1].{path}", message)]}


@pytest.mark.parametrize("first", [FIRST_GUEST, LAST_ID - RANGE + 1])
def test_the_bounds_of_ids(first: int) -> None:
    assert said(hostid=first) == {}


def test_the_labels_of_volumes() -> None:
    assert list(LABELS.breaches(["data", "Data.1"])) == []
    assert list(LABELS.breaches(["data", "../x"])) == [
        ("volumes[1].label", f"'../x' is not {Label.WHAT}")
    ]


def test_the_image_in_the_store_is_the_one_handed_over() -> None:
    manifest = image()

    def found(**changes: object) -> dict[str, list[str]]:
        handed: dict[str, Any] = {"config": manifest.config.digest, "layer": D}
        handed |= {"root_hash": RootHash("a" * 64), **changes}
        mounted = Mounted(manifest, **handed)
        said = {one.name: list(one.breaches(mounted)) for one in IMAGE}
        assert all(path == "" for breaches in said.values() for path, _ in breaches)
        return {name: [text for _, text in found] for name, found in said.items() if found}

    assert found() == {}
    other = Digest.of(b"other")
    assert found(config=other) == {
        "handover-config": [f"the image's configuration is {manifest.config.digest}, not {other}"]
    }
    message = ["the image's layer is not the one handed over"]
    assert found(layer=other) == {"handover-layer": message}
    assert found(root_hash=RootHash("b" * 64)) == {"handover-layer": message}


def test_a_layer_without_a_root_hash_is_none_that_was_handed_over() -> None:
    bare = image(layer(annotations={NEW_ROOT_HASH: "x"}))
    mounted = Mounted(bare, bare.config.digest, D, RootHash("a" * 64))
    assert [list(one.breaches(mounted)) for one in IMAGE] == [
        [],
        [("", f"layer {D}: 'x' is not a verity root hash")],
    ]
