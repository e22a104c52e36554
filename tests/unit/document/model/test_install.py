"""What was judged comes out with its type."""

from __future__ import annotations

import pytest

from machineos.core.digest import Digest
from machineos.core.word import Word
from machineos.document.model.install import Install, Mount, Network, Storage, Target
from machineos.document.model.names import Label, ProductName, ServiceName, Version
from machineos.errors import VerificationError


def target(name: str, version: str) -> Target:
    return Target(
        service_name=name,
        version=version,
        service_type="container",
        network=Network(type="none"),
        nsgroup="",
        digest=str(Digest.of(b"x")),
        size=1,
    )


def install(product: str) -> Install:
    return Install(version=1, product=product, targets=(), update_type="complete")


def storage(label: str) -> Storage:
    return Storage(label=label, persistent=True, nsgroup="", size=1)


def read(text: str) -> dict[str, Word]:
    """Return every value with a type that can be read off values that say ``text``."""
    return {
        "target": target(text, "1").name,
        "version": target("a", text).release,
        "product": install(text).name,
        "storage": storage(text).name,
        "mount": Mount(dest="/", label=text).name,
    }


def test_what_was_judged_has_its_type() -> None:
    found = read("a.1")
    assert {name: type(value) for name, value in found.items()} == {
        "target": ServiceName,
        "version": Version,
        "product": ProductName,
        "storage": Label,
        "mount": Label,
    }
    assert set(found.values()) == {"a.1"}
    assert target("a", "1").image == Digest.of(b"x")


def test_what_nobody_judged_has_none() -> None:
    for make in (
        lambda: target("../x", "1").name,
        lambda: target("a", "../x").release,
        lambda: install("../x").name,
        lambda: storage("../x").name,
        lambda: Mount(dest="/", label="../x").name,
    ):
        with pytest.raises(VerificationError, match=r"'\.\./x' is not a"):
            make()
