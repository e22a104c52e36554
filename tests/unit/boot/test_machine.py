"""The real machine and the one in memory keep the same contract, as far as this host goes.

What needs a kernel that enforces is run in a guest (tests/vm/test_contract_boot).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contracts.beds import Bed, DiskBed, KernelBed, MountBed, StoreBed, TpmBed
from contracts.boot import DISKS, FILES, MOUNTS, STORES
from contracts.real import RealBed
from contracts.trust import KERNELS, TPMS
from fakes.swtpm import SoftwareTpm, software_tpm
from machineos.boot.machine import Machine
from machineos.core.run import run
from machineos.errors import BootError
from unit.boot.beds import (
    FakeBed,
    FakeDiskBed,
    FakeKernelBed,
    FakeStoreBed,
    FakeTpmBed,
    PublishedBed,
    RealDiskBed,
    RealStoreBed,
    RealTpmBed,
)
from waiting import PATIENCE


def name_of(contract: Callable[..., None]) -> str:
    return contract.__name__.replace("_", " ")


@pytest.mark.parametrize("contract", FILES, ids=name_of)
@pytest.mark.parametrize("real", [False, True], ids=["fake", "real"])
def test_files(contract: Callable[[Bed], None], real: bool, tmp_path: Path) -> None:
    contract(RealBed(tmp_path) if real else FakeBed())


@pytest.mark.parametrize("contract", MOUNTS, ids=name_of)
def test_mounts_of_the_fake(contract: Callable[[MountBed], None]) -> None:
    contract(FakeBed())


@pytest.mark.system
def test_mounts_of_this_machine(tmp_path: Path) -> None:
    """In a mount namespace of its own, on memory: an overlay's upper folder must not be one."""
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c",
            f'mount -t tmpfs none "{tmp_path}" && exec "$@"', "sh",
            sys.executable, "-m", "contracts.real", "mounts"]  # fmt: skip
    env = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    result = run([*argv, tmp_path / "beds"], timeout=PATIENCE, env=env, check=False)
    assert result.status == 0, result.stderr.decode()
    assert result.text.split() == [contract.__name__ for contract in MOUNTS]


@pytest.mark.parametrize("contract", DISKS, ids=name_of)
def test_disks_of_the_fake(contract: Callable[[DiskBed], None]) -> None:
    contract(FakeDiskBed())


@pytest.mark.tool("cryptsetup")
@pytest.mark.parametrize("contract", DISKS, ids=name_of)
def test_disks_of_this_machine(contract: Callable[[DiskBed], None], tmp_path: Path) -> None:
    contract(RealDiskBed(tmp_path))


@pytest.mark.parametrize("contract", STORES, ids=name_of)
@pytest.mark.parametrize("real", [False, True], ids=["fake", "real"])
def test_stores(contract: Callable[[StoreBed], None], real: bool, tmp_path: Path) -> None:
    contract(PublishedBed(RealStoreBed(tmp_path) if real else FakeStoreBed()))


@pytest.mark.parametrize("contract", TPMS, ids=name_of)
def test_tpm_of_the_fake(contract: Callable[[TpmBed], None]) -> None:
    contract(FakeTpmBed())


@pytest.fixture(scope="module")
def chip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftwareTpm]:
    with software_tpm(tmp_path_factory.mktemp("tpm")) as running:
        yield running


@pytest.mark.tool("swtpm")
@pytest.mark.parametrize("contract", TPMS, ids=name_of)
def test_a_software_tpm(
    contract: Callable[[TpmBed], None], chip: SoftwareTpm, tmp_path: Path
) -> None:
    bed = RealTpmBed(tmp_path, chip)
    contract(bed)
    bed.host.close_sealed()


@pytest.mark.parametrize("contract", KERNELS, ids=name_of)
def test_a_kernel_that_enforces(contract: Callable[[KernelBed], None]) -> None:
    contract(FakeKernelBed())


def test_the_kernels_own_files_may_be_elsewhere(tmp_path: Path) -> None:
    bed = RealBed(tmp_path, securityfs=tmp_path / "security")
    host: Machine = bed.host
    with pytest.raises(BootError, match="without IPE"):
        host.enforce_policy(b"policy_name=machineos")


def test_a_machine_has_a_console_and_its_drivers(tmp_path: Path) -> None:
    bed = RealBed(tmp_path)
    bed.host.wait_for_drivers()
    assert not bed.host.load_driver()
    bed.host.load_modules(())
    bed.host.say("a line")
    assert (tmp_path / ".console").read_bytes().endswith(b"machineos: a line\r\n")
    assert (tmp_path / ".kmsg").read_text() == "<6>machineos: a line\n"
