"""A manifest as a whole: version, product, what a machine starts from, whose it is."""

from __future__ import annotations

from uuid import UUID

import pytest

from machineos.document.model.names import ProductName
from machineos.document.rules import product
from machineos.errors import PolicyError
from unit.document.rules.samples import breaches, declaration, rule, target

ONE, TWO = UUID(int=1), UUID(int=2)


@pytest.mark.parametrize("version", [0, 2, -1, None, "1", 1.0, True, [], 10**60])
def test_only_version_1_is_known(version: object) -> None:
    assert list(rule("document-version").breaches(version)) == [
        ("version", f"is {repr(version)[:40]}, only 1 is known")
    ]


def test_version_1_is_known() -> None:
    assert list(rule("document-version").breaches(1)) == []


def test_a_product_has_a_name() -> None:
    assert breaches("product-name", target()) == []
    assert breaches("product-name", product="a/b") == [
        ("product", f"'a/b' is not {ProductName.WHAT}")
    ]
    assert breaches("product-name", product="") == [("product", "is missing or empty")]


def test_only_a_complete_manifest_can_be_installed() -> None:
    assert breaches("product-complete", target()) == []
    assert breaches("product-complete", target(), complete=False) == [
        ("update_type", "is partial; only a complete manifest can be installed")
    ]


def test_a_complete_manifest_has_what_boots() -> None:
    hostfs, bootkit = target("hostfs"), target("bootkit")
    assert breaches("product-boots", hostfs, target(), bootkit) == []
    assert breaches("product-boots", hostfs) == [("targets", "has no target bootkit")]
    assert breaches("product-boots", bootkit) == [("targets", "has no target hostfs")]
    assert breaches("product-boots", target(), complete=False) == []
    with pytest.raises(PolicyError) as caught:
        product.BOOTS.require(declaration(target()), "the manifest")
    assert caught.value.message == "the manifest: has no target hostfs"
    assert caught.value.rule == "product-boots"
    assert "--skip-bootkit" in caught.value.hint


def test_documents_of_one_machine_have_one_owner() -> None:
    def found(name: str, other: tuple[UUID, str], ours: tuple[UUID, str]) -> list[tuple[str, str]]:
        pair = product.Pair(product.Owned(*other), product.Owned(*ours))
        return list(rule(name).breaches(pair))

    assert found("product-publisher", (ONE, "a"), (ONE, "b")) == []
    assert found("product-publisher", (TWO, "a"), (ONE, "a")) == [
        ("", f"is of product {TWO}, not of {ONE}")
    ]
    assert found("product-same-name", (ONE, "a"), (TWO, "a")) == []
    assert found("product-same-name", (ONE, "b"), (ONE, "a")) == [
        ("", "is for 'b', the machine is 'a'")
    ]
