"""What the first commit of a machine holds."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from machineos.core.secret import Secret
from machineos.document.model.install import Network, Target
from machineos.document.state.system import parse_system
from machineos.document.verify.published import Fetched, fetch_verified
from machineos.state.config.steps import FIRST_MESSAGE, CreateStore, WriteBeside, first_files
from unit.document.conftest import (
    NOW,
    PRODUCT,
    World,
    authority,
    published_world,
    template,
    world,
)
from unit.document.conftest import fetched as again

__all__ = ["authority", "published_world", "template", "world"]


@pytest.fixture
def fetched(published_world: World) -> Fetched:
    return fetch_verified(
        published_world.registry.repository("machine/install"), "1.0.0",
        ca_pem=published_world.authority.pem, at=NOW, product=PRODUCT,
    )  # fmt: skip


def test_the_document_with_what_proves_it_and_the_system_file(fetched: Fetched) -> None:
    name = fetched.verified.sha256
    files = first_files(fetched)
    assert [file for file, _ in files] == [
        "manifest.yaml", f"{name}.json", f"{name}.json.signed", f"{name}.pem",
    ]  # fmt: skip
    assert [data for _, data in files[1:]] == [
        fetched.verified.data, fetched.signature, fetched.certificate_pem,
    ]  # fmt: skip
    stored = parse_system(files[0][1])
    assert stored.manifests == (name,)
    assert stored.idmaps == {"zot": 100000}


def test_the_same_document_gives_the_same_files(fetched: Fetched) -> None:
    assert first_files(fetched) == first_files(fetched)


def crowd(fetched: Fetched, count: int) -> Fetched:
    """The document with so many groups."""
    install = fetched.verified.install
    target = Target(
        service_name="x", version="1", service_type="fs-only", network=Network(type="none"),
        nsgroup="", digest=install.targets[0].digest, size=1,
    )  # fmt: skip
    targets = tuple(
        msgspec.structs.replace(target, service_name=f"s{n}", nsgroup=f"g{n}") for n in range(count)
    )
    changed = msgspec.structs.replace(install, targets=targets)
    data = changed.to_bytes()
    return again(data)


def test_each_group_gets_a_range_of_its_own(fetched: Fetched) -> None:
    stored = parse_system(first_files(crowd(fetched, 3))[0][1])
    assert stored.idmaps == {"g0": 100000, "g1": 165536, "g2": 231072}


def test_the_step() -> None:
    step = CreateStore(Path("/config"), (), FIRST_MESSAGE, 0)
    assert step.fault_point == "first-commit"
    beside = WriteBeside(Path("/config"), "host-ca.pem", Secret(b"x"), 0o644)
    assert beside.fault_point == "beside-the-store:host-ca.pem"
    assert FIRST_MESSAGE == "Initial commit"
