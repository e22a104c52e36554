"""Which files a machine needs: decided from its definition alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from machineos.errors import MachineError
from machineos.host.virt.qemuimg import Image
from machineos.vm.model import Config, Disk, Machine, Size
from machineos.vm.paths import MachinePaths
from machineos.vm.qemu import placement
from machineos.vm.qemu.placement import Firmware

PATHS = MachinePaths(Path("/c/m.yaml"), Path("/s/a"), Path("/r"), Path("/l"))
MIB = 1 << 20


def config(**more: Any) -> Config:  # noqa: ANN401 (any field)
    return Config(name="a", **more)


@pytest.mark.parametrize(
    ("disk", "place"),
    [
        (Disk(file="a.qcow2"), "/s/a/a.qcow2"),
        (Disk(file="/d/a.qcow2"), "/s/a/a.qcow2"),
        (Disk(file="/s/a/a.qcow2"), "/s/a/a.qcow2"),
        (Disk(file="/d/a.qcow2", size=Size(MIB)), "/d/a.qcow2"),
        (Disk(file="/d/a.raw", read_only=True), "/d/a.raw"),
        (Disk(file="/d/a.iso", type="cdrom"), "/d/a.iso"),
    ],
)
def test_an_image_that_is_only_referred_to_is_copied(disk: Disk, place: str) -> None:
    assert placement.place_of(disk, PATHS) == Path(place)
    assert placement.is_import(disk, PATHS) is (disk == Disk(file="/d/a.qcow2"))


def test_localize_changes_nothing_but_imports() -> None:
    machine = Machine(name="a", config=config(disks=(Disk(file="/d/x"), Disk(file="y"))))
    files = [disk.file for disk in placement.localize(machine, PATHS).config.disks]
    assert files == ["/s/a/x", "y"]


def test_an_image_on_top_of_another_is_not_imported() -> None:
    placement.check_import(Path("/d/x"), Image("qcow2", MIB, ""))
    with pytest.raises(MachineError, match="/d/x stands on another image"):
        placement.check_import(Path("/d/x"), Image("qcow2", MIB, "/other"))


def test_a_disk_has_the_size_that_is_said_when_one_is_said() -> None:
    image = Image("qcow2", MIB, "")
    placement.check_size(Disk(file="x"), Path("/x"), image)
    placement.check_size(Disk(file="x", size=Size(MIB)), Path("/x"), image)
    with pytest.raises(MachineError) as caught:
        placement.check_size(Disk(file="x", size=Size(2 * MIB)), Path("/x"), image)
    assert caught.value.message == "the disk /x has 1048576 bytes, machine.yaml says 2097152"


def test_only_a_raw_cd_is_not_looked_into() -> None:
    assert placement.is_opaque(Disk(file="x", type="cdrom"))
    assert not placement.is_opaque(Disk(file="x", type="cdrom", format="qcow2"))
    assert not placement.is_opaque(Disk(file="x", format="raw"))


def test_firmware_of_the_host_fills_what_the_definition_leaves_out() -> None:
    host = placement.host_firmware(secure_boot=True, folder=Path("/o"))
    assert host == Firmware(Path("/o/OVMF_CODE_4M.secboot.fd"), Path("/o/OVMF_VARS_4M.fd"))
    plain = placement.host_firmware(secure_boot=False)
    assert plain == Firmware(
        Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
    )
    both = config(uefi_code="/c", uefi_vars="/v")
    assert not placement.needs_host_firmware(both)
    assert placement.choose_firmware(both, None) == Firmware(Path("/c"), Path("/v"))
    for half in (config(uefi_code="/c"), config(uefi_vars="/v"), config()):
        assert placement.needs_host_firmware(half)
    only_vars = placement.choose_firmware(config(uefi_vars="/v"), host)
    assert only_vars == Firmware(host.code, Path("/v"))
    only_code = placement.choose_firmware(config(uefi_code="/c"), host)
    assert only_code == Firmware(Path("/c"), host.variables)


def test_secure_boot_goes_by_keys() -> None:
    placement.require_keys(config(uefi_vars="/v"))
    placement.require_keys(config(secure_boot=False))
    with pytest.raises(MachineError, match="machine a: secure-boot needs uefi-vars"):
        placement.require_keys(config())


def test_two_images_fill_one_flash() -> None:
    pair = Firmware(Path("/c"), Path("/v"))
    placement.check_flash(pair, 2 * MIB)
    placement.check_flash(pair, 4 * MIB)
    for total in (2 * MIB - 1, 3 * MIB, 0):
        with pytest.raises(MachineError, match=f"/c and /v do not belong together: {total} bytes"):
            placement.check_flash(pair, total)
