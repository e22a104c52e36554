"""Registries: a fake one, a real one, a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from machineos.core.digest import Digest
from machineos.oci.registry.client import HttpRegistry, Limits
from unit.oci.samples import DATA, NoWaiting
from unit.registries import FAST, docker_registry, fake, name, product, registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fakes.registry import FakeRegistry

__all__ = ["FAST", "docker_registry", "fake", "name", "product", "registry"]

# For what must run into a time limit.
HASTY = Limits(
    connect_seconds=2,
    read_seconds=1,
    answer_seconds=0.4,
    document_seconds=2,
    window_seconds=0.3,
    window_bytes=1000,
    attempts=2,
)


@pytest.fixture
def stored(fake: FakeRegistry) -> FakeRegistry:
    """The same, with the blob ``DATA``."""
    fake.blobs[("a/b", str(Digest.of(DATA)))] = DATA
    return fake


@pytest.fixture
def clock() -> NoWaiting:
    return NoWaiting()


@pytest.fixture
def client(fake: FakeRegistry, clock: NoWaiting) -> Iterator[HttpRegistry]:
    with HttpRegistry(fake.host, limits=FAST, clock=clock, seed=1) as registry:
        yield registry


@pytest.fixture
def hasty(fake: FakeRegistry, clock: NoWaiting) -> Iterator[HttpRegistry]:
    with HttpRegistry(fake.host, limits=HASTY, clock=clock, seed=1) as registry:
        yield registry
