"""Firmware: the pair that belongs together, and variables that are made once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from machineos.errors import MachineError, MissingError
from machineos.vm.model import Config
from machineos.vm.paths import MachinePaths
from machineos.vm.qemu.uefi import find_firmware, place_firmware

NVRAM = 128 << 10
QEMU_IMG = pytest.mark.tool("qemu-img")


@pytest.fixture
def paths(tmp_path: Path) -> MachinePaths:
    state = tmp_path / "state"
    state.mkdir()
    return MachinePaths(tmp_path / "machine.yaml", state, state, tmp_path / "lock")


def config(
    folder: Path,
    code: int = (2 << 20) - NVRAM,
    nvram: int = NVRAM,
    fill: bytes = b"\xff",
    **more: Any,  # noqa: ANN401 (any field)
) -> Config:
    (folder / "code.fd").write_bytes(b"c" * code)
    (folder / "vars.fd").write_bytes(fill * nvram)
    files = {"uefi_code": str(folder / "code.fd"), "uefi_vars": str(folder / "vars.fd")}
    return Config(name="a", **{**files, **more})


@QEMU_IMG
def test_placed_once_and_never_overwritten(tmp_path: Path, paths: MachinePaths) -> None:
    place_firmware(config(tmp_path), paths)
    assert paths.uefi_code.read_bytes() == (tmp_path / "code.fd").read_bytes()
    assert paths.uefi_code.stat().st_mode & 0o777 == 0o600
    nvram = paths.uefi_nvram.read_bytes()
    assert nvram.startswith(b"QFI\xfb")
    place_firmware(config(tmp_path, fill=b"n"), paths)
    assert paths.uefi_nvram.read_bytes() == nvram
    paths.uefi_code.unlink()
    place_firmware(config(tmp_path, fill=b"n"), paths)
    assert paths.uefi_nvram.read_bytes() == nvram


def test_two_builds_do_not_mix(tmp_path: Path, paths: MachinePaths) -> None:
    with pytest.raises(MachineError, match="do not belong together"):
        place_firmware(config(tmp_path, nvram=540672), paths)
    assert not paths.uefi_nvram.exists()


def test_secure_boot_needs_keys(tmp_path: Path, paths: MachinePaths) -> None:
    with pytest.raises(MachineError, match="needs uefi-vars"):
        place_firmware(config(tmp_path, uefi_vars=""), paths)


def test_missing_files_are_named(tmp_path: Path, paths: MachinePaths) -> None:
    with pytest.raises(MissingError, match="no-code"):
        place_firmware(config(tmp_path, uefi_code=str(tmp_path / "no-code")), paths)
    with pytest.raises(MissingError, match=r"secboot\.fd does not exist"):
        find_firmware(secure_boot=True, folder=tmp_path)
