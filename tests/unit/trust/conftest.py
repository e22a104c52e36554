"""A TPM for each file, and a machine that was provisioned with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fakes.swtpm import SoftwareTpm, software_tpm
from unit.trust.sealing import Machine, give


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
