"""Two keysets for all tests of the package (a test that changes one copies it), and a TPM."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.randomness import FixedRandomness
from fakes.swtpm import SoftwareTpm, software_tpm
from machineos.trust.keys.keyset import Keyset, create_keyset
from unit.trust.sealing import Machine, give
from vectors.clock import FixedClock


@pytest.fixture(scope="session")
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture(scope="session")
def keysets(tmp_path_factory: pytest.TempPathFactory, clock: FixedClock) -> Path:
    root = tmp_path_factory.mktemp("keys") / "keysets"
    for name in ("one", "two"):
        create_keyset(
            root,
            name,
            organization="Acme Inc",
            passphrase=None,
            clock=clock,
            random=FixedRandomness(name),
        )
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


@pytest.fixture(scope="module")
def chip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftwareTpm]:
    with software_tpm(tmp_path_factory.mktemp("tpm")) as running:
        yield running


@pytest.fixture
def machine(chip: SoftwareTpm) -> Machine:
    chip.wipe()
    with chip.open() as tpm:
        made = Machine(chip, give(tpm))
    made.boot()
    return made
