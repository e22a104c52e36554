"""What a target may be called, be, and name as its image: each rule, both sides of each bound."""

from __future__ import annotations

from pathlib import Path

import pytest

from machineos.core.serviceid import UNIT_PREFIX, ServiceId
from machineos.core.word import Word
from machineos.document.model.names import GroupName, ServiceName, Version
from machineos.document.rules.targets import NAMES_OF_UNITS
from unit.document.rules.samples import DIGEST, breaches, target

UNITS = Path(__file__).parents[4] / "src/machineos/build/os/hostfs/systemd"


def test_a_manifest_has_a_target() -> None:
    assert breaches("target-some") == [("targets", "is missing or empty")]
    assert breaches("target-some", target()) == []


def test_how_many_there_may_be() -> None:
    most = [target(f"t{number}") for number in range(512)]
    assert breaches("target-count", *most) == []
    assert breaches("target-count", *most, target("x")) == [
        ("targets", "has more than 512 targets")
    ]


@pytest.mark.parametrize(
    ("name", "key", "kind"),
    [
        ("target-name", "service_name", ServiceName),
        ("target-version", "version", Version),
        ("target-group", "nsgroup", GroupName),
    ],
)
def test_names_have_their_grammar(name: str, key: str, kind: type[Word]) -> None:
    first = target("good", **{"nsgroup": "good"} if key == "nsgroup" else {})
    bad = target(**{"service_name": "a", key: "../x"}) if key != "service_name" else target("../x")
    assert breaches(name, first, bad) == [
        (f"targets[1].{key}", f"'../x' is not {kind.WHAT}"),
    ]


def test_a_name_and_a_version_are_needed_and_a_group_is_not() -> None:
    assert breaches("target-name", target("")) == [
        ("targets[0].service_name", "is missing or empty")
    ]
    assert breaches("target-version", target(version="")) == [
        ("targets[0].version", "is missing or empty")
    ]
    assert breaches("target-group", target(nsgroup=""), target("b", nsgroup="none")) == []


def test_no_name_twice() -> None:
    found = breaches("target-name-once", target("a"), target("b"), target("a"), target("b"))
    assert found == [
        ("targets[2].service_name", "'a' is the name of targets[0] already"),
        ("targets[3].service_name", "'b' is the name of targets[1] already"),
    ]
    # That it is missing is said by another rule.
    assert breaches("target-name-once", target(""), target("")) == []


def test_no_name_of_a_unit_of_the_system() -> None:
    for name in ("debug-console", "install", "modules"):
        for kind in ("container", "fs-only"):
            found = breaches("target-name-free", target("a"), target(name, service_type=kind))
            message = f"{name!r} is reserved for a unit of the system"
            assert found == [("targets[1].service_name", message)]
    assert breaches("target-name-free", target("module"), target("install-2"), target("")) == []


def test_the_units_of_the_system_are_those_that_the_root_ships() -> None:
    found = [*UNITS.glob(f"{UNIT_PREFIX}*")]
    shipped = {path.name for path in found if path.is_file()}
    names = {name.removeprefix(UNIT_PREFIX).rpartition(".")[0] for name in shipped}
    assert names == set(NAMES_OF_UNITS)
    assert ServiceId("modules").unit in shipped
    # Files that add to units: of one of these, or of every unit with the prefix.
    added = {path.name.removesuffix(".d") for path in found if path.is_dir()}
    assert added <= {*shipped, f"{UNIT_PREFIX}.service"}


def test_a_type_is_given() -> None:
    assert breaches("target-type", target(), target(service_type=None)) == [
        ("targets[1].service_type", "is missing or empty")
    ]


@pytest.mark.parametrize(
    ("name", "kind"), [("hostfs", "hostfs"), ("bootkit", "fs-only"), ("livecd", "fs-only")]
)
def test_some_names_have_their_type(name: str, kind: str) -> None:
    assert breaches("target-type-of-name", target(name, service_type=kind)) == []
    assert breaches("target-type-of-name", target(name, service_type=None)) == []
    assert breaches("target-type-of-name", target(name, service_type="container")) == [
        ("targets[0].service_type", f"{name} must be {kind}, not container")
    ]
    assert breaches("target-type-of-name", target("other", service_type="fs-only")) == []


def test_only_hostfs_is_hostfs() -> None:
    assert breaches("target-one-hostfs", target("hostfs", service_type="hostfs")) == []
    assert breaches("target-one-hostfs", target("x"), target("y", service_type="hostfs")) == [
        ("targets[1].service_type", "only the target called hostfs can be hostfs")
    ]


def test_where_an_image_is() -> None:
    def found(source: str | None) -> list[tuple[str, str]]:
        return breaches("target-source", target(), target("b", source=source))

    assert found(None) == []
    assert found("oci:folder:tag") == []
    assert found("") == [("targets[1].source", "is missing or empty")]
    assert found("oci:folder") == [
        ("targets[1].source", "'oci:folder' names no tag: oci:DIR:TAG or oci:DIR@sha256:..."),
    ]
    long = "oci:" + "x" * 100
    assert found(long) == [
        ("targets[1].source", f"{long[:80]!r} names no tag: oci:DIR:TAG or oci:DIR@sha256:...")
    ]


@pytest.mark.parametrize(
    ("digest", "message"),
    [
        (DIGEST, ""),
        (None, ""),
        ("", "'' is not a digest (algorithm:hex)"),
        ("a" * 64, f"{'a' * 64!r} is not a digest (algorithm:hex)"),
        ("sha512:" + "a" * 128, f"{('sha512:' + 'a' * 128)[:80]!r} is not a sha256 digest"),
        ("sha256:../..", "'../..' is not a sha256 value in lower-case hex"),
        ("md5:" + "a" * 32, "digest algorithm 'md5' is not sha256 or sha512"),
    ],
)
def test_how_an_image_is_named(digest: str | None, message: str) -> None:
    found = breaches("target-digest", target(), target("b", digest=digest))
    assert found == ([("targets[1].digest", message)] if message else [])


def test_how_large_an_image_manifest_can_be() -> None:
    for good in (None, 1, 4 << 20):
        assert breaches("target-size", target(size=good)) == []
    for bad in (0, -1, (4 << 20) + 1):
        assert breaches("target-size", target(), target("b", size=bad)) == [
            ("targets[1].size", f"{bad} is not the size of an image manifest (1 to 4194304)")
        ]
