"""What takes seconds to make is made once for all processes that run the tests: two keysets."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

import pytest

from fakes.randomness import FixedRandomness
from machineos.trust.keys.keyset import Keyset, create_keyset
from vectors.clock import FixedClock


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("early") is None)


@pytest.fixture(scope="session")
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture(scope="session")
def keysets(tmp_path_factory: pytest.TempPathFactory, clock: FixedClock) -> Path:
    """The folder with the keysets ``one`` and ``two``. Nobody changes it."""
    base = tmp_path_factory.getbasetemp()
    # A worker of pytest-xdist has a folder of its own in that of the run.
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    root = shared / "keysets"
    with (shared / "keysets.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in ("one", "two"):
            if not (root / name).is_dir():  # a keyset appears whole
                create_keyset(
                    root, name, organization="Acme Inc", passphrase=None, clock=clock,
                    random=FixedRandomness(name),
                )  # fmt: skip
    return root


@pytest.fixture(scope="session")
def one(keysets: Path) -> Keyset:
    return Keyset.open(keysets, "one")


@pytest.fixture(scope="session")
def two(keysets: Path) -> Keyset:
    return Keyset.open(keysets, "two")


@pytest.fixture
def own(one: Keyset, tmp_path: Path) -> Keyset:
    """A copy of a keyset, to change."""
    return Keyset("k", shutil.copytree(one.root, tmp_path / "k"))
