"""The merged system to the letter: order, messages, bounds, what a machine starts from."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from machineos.core.idrange import FIRST_GUEST, LAST_ID, RANGE
from machineos.core.word import DocumentId
from machineos.document.model.install import (
    Install,
    Mount,
    Network,
    Port,
    Storage,
    Target,
    UpdateType,
)
from machineos.document.model.limits import (
    FIRST_ID,
    MAX_INSTALL,
    MAX_SMALL,
)
from machineos.document.model.names import GroupName
from machineos.document.state import system
from machineos.document.state.system import (
    IdMap,
    SystemFile,
    assign_idmaps,
    document_files,
    load_verified,
    merge,
    parse_system,
    require_bootable,
    system_file,
)
from machineos.document.verify.published import VerifiedInstall
from machineos.errors import ConflictError, DigestError, DocumentError, PolicyError
from unit.document.conftest import NOW, OTHER_PRODUCT, PRODUCT, signed, the_authority

DIGEST = "sha256:" + "a" * 64


def target(name: str, **changes: object) -> Target:
    values: dict[str, Any] = {
        "service_name": name,
        "version": "1",
        "service_type": "container",
        "network": Network(type="none"),
        "nsgroup": "",
        "digest": DIGEST,
        "size": 100,
    }
    values |= changes
    return Target(**values)


def volume(label: str, **changes: object) -> Storage:
    values: dict[str, Any] = {"label": label, "persistent": True, "nsgroup": "", "size": 1}
    return Storage(**{**values, **changes})


def document(
    *targets: Target,
    kind: UpdateType = "partial",
    storage: tuple[Storage, ...] = (),
    product: str = "p",
    owner: UUID = PRODUCT,
) -> VerifiedInstall:
    install = Install(
        version=1, product=product, targets=targets, update_type=kind, storage=storage
    )
    return signed(install.to_bytes(), owner)


def test_the_constants_are_these() -> None:
    assert system.SYSTEM_FILE == "manifest.yaml"
    assert system.VERSION == 1
    assert system.MAX_SYSTEM == 1 << 20
    assert (RANGE, FIRST_GUEST, FIRST_ID, LAST_ID) == (65536, 65536, 100_000, 4294967294)


def test_what_is_replaced_moves_to_the_end() -> None:
    one = document(target("a"), target("b"), target("c"), storage=(volume("x"), volume("y")))
    two = document(target("a", version="2"), storage=(volume("x", size=2),))
    merged = merge([one, two])
    assert [entry.target.service_name for entry in merged.targets] == ["b", "c", "a"]
    assert [entry.storage.label for entry in merged.storage] == ["y", "x"]
    assert [entry.source for entry in merged.targets] == [one.sha256, one.sha256, two.sha256]
    assert [entry.source for entry in merged.storage] == [one.sha256, two.sha256]
    assert merged.manifests == (one.sha256, two.sha256)
    assert all(isinstance(name, DocumentId) for name in merged.manifests)


def test_a_complete_document_leaves_nothing_of_those_before() -> None:
    one = document(target("a"), storage=(volume("x"),))
    two = document(target("b"), kind="complete")
    merged = merge([one, two])
    assert [entry.target.service_name for entry in merged.targets] == ["b"]
    assert merged.storage == ()
    assert merged.manifests == (two.sha256,)


def test_a_document_of_which_only_a_volume_is_left_counts() -> None:
    one = document(target("a"), storage=(volume("x"),))
    two = document(target("a", version="2"))
    assert merge([one, two]).manifests == (one.sha256, two.sha256)
    assert merge([one, two, one]).manifests == (one.sha256,)


def test_whose_the_system_is() -> None:
    merged = merge([document(target("a"), product="name", owner=OTHER_PRODUCT)])
    assert (merged.product, merged.publisher) == ("name", OTHER_PRODUCT)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"owner": OTHER_PRODUCT}, f"is of product {OTHER_PRODUCT}, not of {PRODUCT}"),
        ({"product": "q"}, "is for 'q', the machine is 'p'"),
    ],
)
def test_a_document_of_somebody_else(change: dict[str, Any], message: str) -> None:
    ours, second = document(target("a")), document(target("b"))
    theirs = document(target("c"), **change)
    with pytest.raises(PolicyError) as caught:
        merge([ours, second, theirs])
    assert caught.value.message == f"manifest {theirs.sha256}: {message}"


def test_nothing_is_no_system() -> None:
    with pytest.raises(DocumentError) as caught:
        merge([])
    assert caught.value.name == "the manifests together"
    assert [fault.rule for fault in caught.value.faults] == ["system-count"]


def test_documents_that_do_not_go_together() -> None:
    def simple(name: str) -> Target:
        ports = (Port(host=80, container=1),)
        return target(name, network=Network(type="simple", ipv4="10.0.3.9/24", ports=ports))

    with pytest.raises(DocumentError) as caught:
        merge([document(simple("a")), document(simple("b"))])
    assert caught.value.name == "the manifests together"
    assert [(fault.path, fault.rule) for fault in caught.value.faults] == [
        ("targets[1].network.ipv4", "address-once"),
        ("targets[1].network.ports[0].host", "port-once"),
    ]
    assert caught.value.hint == (
        "a partial update must fit to what is installed; publish a complete one"
    )
    mounting = document(target("c", storage=(Mount(dest="/a", label="x"),)))
    with pytest.raises(DocumentError, match="'x' is not the label of a storage item"):
        merge([document(target("a")), mounting])
    assert merge([document(target("a"), storage=(volume("x"),)), mounting]).targets


def test_the_groups_that_need_ids() -> None:
    merged = merge(
        [
            document(
                target("a", nsgroup="one"),
                target("b", nsgroup="none"),
                target("c"),
                target("d", nsgroup="one"),
                storage=(volume("x", nsgroup="two"), volume("y", nsgroup="one"), volume("z")),
            )
        ]
    )
    assert merged.groups == ("one", "two")
    assert all(isinstance(group, GroupName) for group in merged.groups)
    assert merged.target("b") == target("b", nsgroup="none")
    assert merged.target("x") is None


@pytest.mark.parametrize("missing", ["", "hostfs", "bootkit"])
def test_what_a_machine_starts_from(missing: str) -> None:
    parts = {
        "hostfs": target("hostfs", service_type="hostfs"),
        "bootkit": target("bootkit", service_type="fs-only"),
        "a": target("a"),
    }
    merged = merge([document(*(part for name, part in parts.items() if name != missing))])
    if not missing:
        require_bootable(merged)
        return
    with pytest.raises(PolicyError) as caught:
        require_bootable(merged)
    assert caught.value.message == f"the manifests together: has no target {missing}"


# -- ids


def test_new_groups_get_the_lowest_free_ranges() -> None:
    assert assign_idmaps({}, ["a", "none", "", "b", "a"]) == {"a": 100_000, "b": 165_536}
    existing = {"x": 100_000 + 2 * RANGE, "y": FIRST_GUEST}
    assert assign_idmaps(existing, ["a", "b", "x"]) == {
        **existing,
        # The first step from 100000 that leaves 65536 to 131071 alone.
        "a": 165_536,
        "b": 100_000 + 3 * RANGE,
    }


def test_the_last_range_and_none_after_it() -> None:
    steps = range(FIRST_ID, LAST_ID - RANGE + 2, RANGE)
    full = {f"g{number}": first for number, first in enumerate(steps)}
    last = dict(list(full.items())[:-1])
    assert assign_idmaps(last, ["a"])["a"] == steps[-1]
    with pytest.raises(ConflictError) as caught:
        assign_idmaps(full, ["a"])
    assert caught.value.message == "manifest.yaml: no id range is free for group 'a'"
    assert assign_idmaps(full, ["g0", ""]) == full


@pytest.mark.parametrize(
    ("existing", "message"),
    [
        ({"a": FIRST_GUEST - 1}, f"id range 65535 is outside 65536 to {LAST_ID}"),
        ({"a": LAST_ID - RANGE + 2}, f"id range 4294901760 is outside 65536 to {LAST_ID}"),
        ({"a": 100_000, "b": 100_001}, "id ranges 100000 and 100001 overlap"),
    ],
)
def test_ranges_that_cannot_be(existing: dict[str, int], message: str) -> None:
    with pytest.raises(ConflictError) as caught:
        assign_idmaps(existing, [])
    assert caught.value.message == f"manifest.yaml: {message}"


def test_the_edges_are_good() -> None:
    edges = {"a": FIRST_GUEST, "b": LAST_ID - RANGE + 1}
    assert assign_idmaps(edges, []) == edges


# -- the file


def test_what_is_stored() -> None:
    merged = merge([document(target("a", nsgroup="g"), storage=(volume("x", nsgroup="h"),))])
    stored = system_file(merged, {"g": 100_000, "h": 200_000, "old": 300_000})
    assert stored == SystemFile(
        version=1,
        manifests=merged.manifests,
        uidmaps=(IdMap("g", 100_000), IdMap("h", 200_000), IdMap("old", 300_000)),
    )
    (name,) = merged.manifests
    assert (
        stored.to_bytes()
        == (
            '{\n "version": 1,\n "manifests": [\n  "' + name + '"\n ],\n "uidmaps": [\n'
            '  {\n   "idmap-name": "g",\n   "hostid": 100000\n  },\n'
            '  {\n   "idmap-name": "h",\n   "hostid": 200000\n  },\n'
            '  {\n   "idmap-name": "old",\n   "hostid": 300000\n  }\n ]\n}\n'
        ).encode()
    )
    assert parse_system(stored.to_bytes()) == stored
    assert stored.idmaps == {"g": 100_000, "h": 200_000, "old": 300_000}
    with pytest.raises(ConflictError) as caught:
        system_file(merged, {"g": 100_000})
    assert caught.value.message == "manifest.yaml: group 'h' has no id range"


@pytest.mark.parametrize("count", [64, 65])
def test_how_many_documents_a_machine_may_run(count: int) -> None:
    merged = merge([document(target(f"t{number}")) for number in range(count)])
    if count == 64:
        assert len(parse_system(system_file(merged, {}).to_bytes()).manifests) == 64
        return
    with pytest.raises(DocumentError) as caught:
        system_file(merged, {})
    assert caught.value.name == "the manifests together"
    assert caught.value.hint == "publish a complete manifest"


def test_all_faults_of_a_stored_file_are_told() -> None:
    bad = SystemFile(
        version=2, manifests=("x", "x"), uidmaps=(IdMap("none", 5), IdMap("none", 70_000))
    )
    with pytest.raises(DocumentError) as caught:
        parse_system(bad.to_bytes(), name="it")
    assert caught.value.name == "it"
    assert [(fault.path, fault.rule) for fault in caught.value.faults] == [
        ("version", "document-version"),
        ("manifests[0]", "system-document"),
        ("manifests[1]", "system-document"),
        ("manifests[1]", "system-document-once"),
        ("uidmaps[0].idmap-name", "system-group"),
        ("uidmaps[1].idmap-name", "system-group"),
        ("uidmaps[1].idmap-name", "system-group-once"),
        ("uidmaps[0].hostid", "id-range-inside"),
    ]
    with pytest.raises(DocumentError, match="larger than 1048576"):
        parse_system(b" " * ((1 << 20) + 1))
    with pytest.raises(DocumentError, match=r"^manifest\.yaml: "):
        parse_system(b"")


# -- reading again


def test_three_files_of_each_document_are_read_in_order_and_bounded() -> None:
    signer = the_authority().publisher
    one, two = document(target("a")), document(target("b"))
    files: dict[str, bytes] = {}
    for verified in (one, two):
        contents = (verified.data, signer.sign(verified.data), signer.certificate_pem)
        files |= dict(zip(document_files(verified.sha256), contents, strict=True))
    asked: list[tuple[str, int]] = []

    def read(name: str, limit: int) -> bytes:
        asked.append((name, limit))
        return files[name]

    stored = SystemFile(version=1, manifests=(two.sha256, one.sha256))
    arguments: dict[str, Any] = {"ca_pem": the_authority().pem, "at": NOW, "product": PRODUCT}
    assert load_verified(read, stored, **arguments) == (two, one)
    assert asked == [
        (f"{name}{suffix}", limit)
        for name in (two.sha256, one.sha256)
        for suffix, limit in (
            (".json", MAX_INSTALL), (".json.signed", MAX_SMALL), (".pem", MAX_SMALL)
        )
    ]  # fmt: skip
    assert load_verified(read, stored, **{**arguments, "at": None, "product": None}) == (two, one)
    with pytest.raises(PolicyError):
        load_verified(read, stored, **{**arguments, "product": OTHER_PRODUCT})
    files[f"{one.sha256}.json"] = two.data
    files[f"{one.sha256}.json.signed"] = signer.sign(two.data)
    with pytest.raises(DigestError) as caught:
        load_verified(read, stored, **arguments)
    assert caught.value.message == (
        f"{one.sha256}.json: digest is sha256:{two.sha256}, expected sha256:{one.sha256}"
    )
