"""What a machine runs: merging verified documents, id ranges, the system file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from machineos.core import yamldoc
from machineos.core.digest import Digest
from machineos.core.files import read_bounded
from machineos.core.idrange import LAST_ID, RANGE
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
from machineos.document.model.limits import FIRST_ID
from machineos.document.state.system import (
    IdMap,
    System,
    SystemFile,
    assign_idmaps,
    document_files,
    load_verified,
    merge,
    parse_system,
    system_file,
)
from machineos.document.verify.published import VerifiedInstall
from machineos.errors import (
    ConflictError,
    DigestError,
    DocumentError,
    MissingError,
    PolicyError,
    SignatureError,
)
from unit.document.conftest import NOW, OTHER_PRODUCT, PRODUCT, Authority, signed
from unit.document.product.test_install import SEED

Stored = tuple[Path, SystemFile]


def target(name: str, version: str = "1", **changes: object) -> Target:
    values: dict[str, Any] = {
        "service_name": name,
        "version": version,
        "service_type": "container",
        "network": Network(type="none"),
        "nsgroup": name,
        "digest": str(Digest.of(f"{name} {version}".encode())),
        "size": 100,
        **changes,
    }
    return Target(**values)


def volume(label: str, nsgroup: str = "", size: int = 1) -> Storage:
    return Storage(label=label, persistent=True, nsgroup=nsgroup, size=size)


def document(
    *targets: Target,
    kind: UpdateType = "partial",
    storage: Sequence[Storage] = (),
    product: str = "p",
    owner: UUID = PRODUCT,
) -> VerifiedInstall:
    """Return what ``verify_install`` would return for these targets."""
    install = Install(
        version=1, product=product, targets=targets, update_type=kind, storage=tuple(storage)
    )
    return signed(install.to_bytes(), owner)


def names(system: System) -> list[tuple[str, str]]:
    return [(t.target.service_name, t.target.version) for t in system.targets]


def test_complete_replaces_everything() -> None:
    old = document(target("a"), target("b"), kind="complete", storage=[volume("x")])
    new = document(target("c"), kind="complete")
    system = merge([old, new])
    assert names(system) == [("c", "1")]
    assert system.storage == ()
    assert system.manifests == (new.sha256,)


def test_partial_keeps_replaces_and_adds_and_each_target_keeps_its_document() -> None:
    old = document(target("a"), target("b"), kind="complete", storage=[volume("x"), volume("y")])
    new = document(target("b", "2"), target("c"), storage=[volume("y", size=2)])
    system = merge([old, new])
    assert sorted(names(system)) == [("a", "1"), ("b", "2"), ("c", "1")]
    assert {t.target.service_name: t.source for t in system.targets} == {
        "a": old.sha256,
        "b": new.sha256,
        "c": new.sha256,
    }
    assert {(s.storage.label, s.storage.size) for s in system.storage} == {("x", 1), ("y", 2)}
    assert system.manifests == (old.sha256, new.sha256)
    found = system.target("b")
    assert found is not None
    assert found.version == "2"
    assert system.target("z") is None


def test_a_document_of_which_nothing_is_left_is_dropped() -> None:
    first = document(target("a"), kind="complete")
    second = document(target("a", "2"))
    third = document(target("b"))
    assert merge([first, second, third]).manifests == (second.sha256, third.sha256)


def test_going_back_to_an_earlier_document() -> None:
    first = document(target("a"), target("b"), kind="complete")
    second = document(target("a", "2"))
    system = merge([first, second, first])
    assert sorted(names(system)) == [("a", "1"), ("b", "1")]
    assert system.manifests == (first.sha256,)


def test_another_product_is_refused() -> None:
    ours = document(target("a"))
    for other in (
        document(target("b"), owner=OTHER_PRODUCT),
        document(target("b"), product="q"),
    ):
        with pytest.raises(PolicyError):
            merge([ours, other])
        with pytest.raises(PolicyError):
            merge([other, ours])


def test_nothing_installed_is_refused() -> None:
    with pytest.raises(DocumentError):
        merge([])


def simple(name: str, port: int, address: str = "") -> Target:
    ports = (Port(host=port, container=1),)
    return target(name, network=Network(type="simple", ipv4=address, ports=ports))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (simple("a", 80), simple("b", 80)),
        (simple("a", 80, "10.0.3.9/24"), simple("b", 81, "10.0.3.9/24")),
        (target("a"), target("b", storage=(Mount(dest="/x", label="nowhere"),))),
    ],
    ids=["port", "address", "volume"],
)
def test_documents_that_are_good_alone_and_not_together(old: Target, new: Target) -> None:
    merge([document(old)])
    with pytest.raises(DocumentError, match="together"):
        merge([document(old, kind="complete"), document(new)])


def test_a_partial_update_may_mount_an_earlier_volume() -> None:
    old = document(target("a"), kind="complete", storage=[volume("data")])
    new = document(target("b", storage=(Mount(dest="/x", label="data"),)))
    assert merge([old, new]).target("b") is not None


TARGETS = st.builds(target, st.sampled_from("abcd"), st.sampled_from("12"))
DOCUMENTS = st.builds(
    lambda targets, kind, volumes: document(*targets, kind=kind, storage=volumes),
    st.lists(TARGETS, min_size=1, max_size=4, unique_by=lambda t: t.service_name),
    st.sampled_from(["partial", "complete"]),
    st.lists(
        st.builds(volume, st.sampled_from("xyz"), st.sampled_from(["", "none", "g"])),
        max_size=3,
        unique_by=lambda item: item.label,
    ),
)


@given(st.lists(DOCUMENTS, min_size=1, max_size=6))
def test_merging_what_a_merge_kept_gives_the_same(documents: list[VerifiedInstall]) -> None:
    system = merge(documents)
    by_name = {found.sha256: found for found in documents}
    assert merge([by_name[name] for name in system.manifests]) == system
    # Every target and volume is literally one of a signed document.
    for entry in system.targets:
        assert entry.target in by_name[entry.source].install.targets
    for item in system.storage:
        assert item.storage in (by_name[item.source].install.storage or ())
    last = documents[-1].install
    assert set(last.targets) <= {entry.target for entry in system.targets}
    if last.update_type == "complete":
        assert len(system.targets) == len(last.targets)


@given(st.lists(DOCUMENTS, min_size=1, max_size=3), DOCUMENTS)
def test_merging_step_by_step_is_merging_at_once(
    documents: list[VerifiedInstall], new: VerifiedInstall
) -> None:
    """A machine that keeps only what the last merge kept loses nothing by it."""
    by_name = {found.sha256: found for found in documents}
    kept = [by_name[name] for name in merge(documents).manifests]
    assert merge([*kept, new]) == merge([*documents, new])


# -- id ranges

GROUPS = st.lists(st.text("abcdef", min_size=1, max_size=2), max_size=30)


def disjoint(maps: dict[str, int]) -> bool:
    taken = sorted(maps.values())
    return all(low + RANGE <= high for low, high in pairwise(taken))


def test_two_groups_never_share_a_range() -> None:
    """The predecessor gave the second group the first one's range."""
    assert assign_idmaps({}, ["a", "b"]) == {"a": FIRST_ID, "b": FIRST_ID + RANGE}


def test_an_update_looks_at_the_ranges_that_are_there() -> None:
    """The predecessor looked at the new list only."""
    before = assign_idmaps({}, ["a"])
    assert assign_idmaps(before, ["b"]) == {"a": FIRST_ID, "b": FIRST_ID + RANGE}


def test_no_group_no_range() -> None:
    assert assign_idmaps({}, ["", "none"]) == {}


def test_volumes_have_groups_too() -> None:
    """The predecessor gave a volume's group no range at install, and failed at boot."""
    system = merge([document(target("a"), storage=[volume("x", "shared"), volume("y", "a")])])
    assert system.groups == ("a", "shared")


@given(GROUPS, GROUPS, GROUPS)
def test_ranges_are_disjoint_kept_and_enough(
    first: list[str], second: list[str], third: list[str]
) -> None:
    maps: dict[str, int] = {}
    for groups in (first, second, third):
        after = assign_idmaps(maps, groups)
        assert disjoint(after)
        assert {name: after[name] for name in maps} == maps
        assert {name for name in groups if name != "none"} <= set(after)
        assert all(FIRST_ID <= first <= LAST_ID - RANGE + 1 for first in after.values())
        assert assign_idmaps(after, groups) == after
        maps = after


# Anywhere, and close enough to others that half of them overlap.
STARTS = st.integers(-RANGE, 1 << 33) | st.integers(RANGE, 8 * RANGE)


@given(st.lists(STARTS, max_size=8), GROUPS)
@example([FIRST_ID, FIRST_ID + RANGE - 1], [])
@example([FIRST_ID, FIRST_ID + RANGE], [])
@example([FIRST_ID + 1], ["a"])
def test_foreign_ranges_are_kept_clear_of_or_refused(starts: list[int], groups: list[str]) -> None:
    existing = {f"x{number}": start for number, start in enumerate(starts)}
    try:
        after = assign_idmaps(existing, groups)
    except ConflictError:
        inside = all(RANGE <= start <= LAST_ID - RANGE + 1 for start in starts)
        assert not inside or not disjoint(existing)
        return
    assert disjoint(after)
    assert set(existing.items()) <= set(after.items())


def test_the_last_range() -> None:
    taken = {"a": LAST_ID - RANGE + 1}
    assert assign_idmaps(taken, ["b"])["b"] == FIRST_ID
    full = {f"g{n}": first for n, first in enumerate(range(FIRST_ID, LAST_ID - RANGE + 1, RANGE))}
    with pytest.raises(ConflictError, match="free"):
        assign_idmaps(full, ["one-more"])


# -- the system file


def test_the_system_file_is_json_and_yaml_and_comes_back() -> None:
    system = merge([document(target("a"), storage=[volume("x", "shared")])])
    stored = system_file(system, assign_idmaps({}, system.groups))
    data = stored.to_bytes()
    assert json.loads(data) == {
        "version": 1,
        "manifests": list(system.manifests),
        "uidmaps": [
            {"idmap-name": "a", "hostid": 100000},
            {"idmap-name": "shared", "hostid": 165536},
        ],
    }
    assert parse_system(data) == stored
    assert parse_system(data).idmaps == {"a": 100000, "shared": 165536}
    assert isinstance(yamldoc.parse_yaml(data, name="manifest.yaml"), yamldoc.Mapping)


def test_a_group_without_a_range_is_not_stored() -> None:
    with pytest.raises(ConflictError):
        system_file(merge([document(target("a"))]), {})


SHA = "a" * 64
STORED = SystemFile(version=1, manifests=(SHA,), uidmaps=(IdMap("a", 100000),))


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"manifests": []},
        {"manifests": ["../../etc/passwd"]},
        {"manifests": ["A" * 64]},
        {"manifests": [SHA + "\n"]},
        {"manifests": [SHA, SHA]},
        {"manifests": [f"{n:064x}" for n in range(65)]},
        {"uidmaps": [{"idmap-name": "a", "hostid": 0}]},
        {"uidmaps": [{"idmap-name": "a", "hostid": 1000}]},
        {"uidmaps": [{"idmap-name": "a", "hostid": LAST_ID}]},
        {"uidmaps": [{"idmap-name": "none", "hostid": 100000}]},
        {"uidmaps": [{"idmap-name": "../a", "hostid": 100000}]},
        {"uidmaps": [{"idmap-name": "a", "hostid": 1e5}]},
        {"uidmaps": [{"idmap-name": n, "hostid": 100000} for n in "ab"]},
        {"uidmaps": [{"idmap-name": n, "hostid": 100000 + 65535 * (n > "a")} for n in "ab"]},
        {"uidmaps": [{"idmap-name": "a", "hostid": n} for n in (100000, 200000)]},
        {"targets": []},
    ],
)
def test_a_bad_system_file_is_refused(change: dict[str, object]) -> None:
    body = json.loads(STORED.to_bytes()) | change
    with pytest.raises(DocumentError):
        parse_system(json.dumps(body).encode())


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    try:
        stored = parse_system(data)
    except DocumentError:
        return
    assert parse_system(stored.to_bytes()) == stored


# -- reading the store again


@pytest.fixture
def stored(tmp_path: Path, authority: Authority) -> Stored:
    """Two signed documents in a folder, as the configuration store keeps them."""
    second = msgspec.structs.replace(SEED, update_type="partial", targets=(target("extra"),))
    shas = []
    for install in (SEED, second):
        data = install.to_bytes()
        files = document_files(DocumentId.of(data))
        signer = authority.publisher
        contents = (data, signer.sign(data), signer.certificate_pem)
        for name, content in zip(files, contents, strict=True):
            (tmp_path / name).write_bytes(content)
        shas.append(DocumentId.of(data))
    return tmp_path, SystemFile(version=1, manifests=tuple(shas))


def load(stored: Stored, authority: Authority, **changes: object) -> tuple[VerifiedInstall, ...]:
    folder, file = stored
    arguments: dict[str, Any] = {
        "ca_pem": authority.pem, "at": NOW, "product": PRODUCT, **changes
    }  # fmt: skip

    def read(name: str, limit: int) -> bytes:
        return read_bounded(folder / name, limit)

    return load_verified(read, file, **arguments)


def test_all_documents_are_verified_again(stored: Stored, authority: Authority) -> None:
    system = merge(load(stored, authority))
    assert [name for name, _ in names(system)] == ["zot", "hostfs", "bootkit", "extra"]
    assert system.groups == ("zot", "extra")


@pytest.mark.parametrize("suffix", [".json", ".json.signed", ".pem"])
def test_a_changed_or_missing_file_is_refused(
    stored: Stored, authority: Authority, suffix: str
) -> None:
    folder, file = stored
    path = folder / f"{file.manifests[0]}{suffix}"
    good = path.read_bytes()
    for place in (0, len(good) // 2, len(good) - 2):
        bad = bytearray(good)
        bad[place] ^= 1
        path.write_bytes(bytes(bad))
        with pytest.raises((DigestError, SignatureError)):
            load(stored, authority)
    path.unlink()
    with pytest.raises(MissingError):
        load(stored, authority)


def test_a_document_under_anothers_name_is_refused(stored: Stored, authority: Authority) -> None:
    """Validly signed both: only the name says which one was meant."""
    folder, file = stored
    for one, other in zip(
        document_files(file.manifests[0]), document_files(file.manifests[1]), strict=True
    ):
        (folder / one).write_bytes((folder / other).read_bytes())
    with pytest.raises(DigestError):
        load(stored, authority)


def test_another_product_or_ca_is_refused(
    stored: Stored, authority: Authority, stranger: Authority
) -> None:
    with pytest.raises(PolicyError):
        load(stored, authority, product=OTHER_PRODUCT)
    with pytest.raises(SignatureError):
        load(stored, authority, ca_pem=stranger.pem)


def test_a_link_in_the_store_is_refused(
    stored: Stored, authority: Authority, tmp_path: Path
) -> None:
    folder, file = stored
    path = folder / f"{file.manifests[0]}.pem"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DocumentError):
        load(stored, authority)
