"""What of a box works, from a sysfs that has the shape of a real one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from machineos.cli.operator.mosctl import mosctl
from machineos.host.disk.box import SECURE_BOOT, Box, Card, DiskSeen, Tpm, Watchdog, lines, look

STICK = "devices/pci0000:00/0000:00:03.0/usb2/2-1/2-1:1.0/host7/target7:0:0/7:0:0:0/block/sdb"
RAID = "devices/pci0000:00/0000:00:04.0/host6/target6:2:0/6:2:0:0/block/sda"
NVME = "devices/pci0000:00/0000:00:05.0/nvme/nvme0/nvme0n1"


def write(root: Path, path: str, **files: str) -> None:
    folder = root / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(f"{text}\n")


def link(root: Path, path: str, target: str) -> None:
    (root / target).mkdir(parents=True, exist_ok=True)
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).symlink_to(root / target)


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    """A server: TPM, three disks, one card with a cable and one without, two watchdogs."""
    write(tmp_path, "class/tpm/tpm0", tpm_version_major="2")
    link(tmp_path, "class/tpm/tpm0/device/driver", "bus/acpi/drivers/tpm_crb")
    path = tmp_path / SECURE_BOOT
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\6\0\0\0\1")
    for place, size, removable, model in (
        (RAID, "4000000000", "0", "MR9341-4i"), (STICK, "60000000", "1", "Ultra"),
        (NVME, "1000000000", "0", "SSD"),
    ):  # fmt: skip
        name = place.rsplit("/", 1)[1]
        write(tmp_path, place, uevent="DEVTYPE=disk", size=size, ro="0", removable=removable)
        write(tmp_path, f"{place}/device", model=model)
        link(tmp_path, f"class/block/{name}", place)
    for name, driver, carrier in (("eno1", "igb", "1"), ("eno2", "igb", "0"), ("eno3", "ice", "")):
        write(tmp_path, f"class/net/{name}", address="52:54:00:00:00:01", carrier=carrier)
        link(tmp_path, f"class/net/{name}/device/driver", f"bus/pci/drivers/{driver}")
    write(tmp_path, "class/net/lo", address="00:00:00:00:00:00")
    write(tmp_path, "class/watchdog/watchdog0", identity="iTCO_wdt", state="active", timeout="30")
    pci = "bus/pci/devices/0000:01:00.0"
    write(tmp_path, pci, vendor="0x1000", device="0x10e2", **{"class": "0x010400"})
    write(tmp_path, "bus/pci/devices/0000:00:02.0", vendor="0x8086", **{"class": "0x030000"})
    return tmp_path


def test_a_box_as_it_is(sysfs: Path) -> None:
    address = "52:54:00:00:00:01"
    assert look(sysfs) == Box(
        tpm=Tpm("2.0", "tpm_crb", "a command buffer, as those in processors have"),
        secure_boot="on",
        disks=(
            DiskSeen("nvme0n1", 512_000_000_000, "nvme", "SSD", removable=False),
            DiskSeen("sda", 2_048_000_000_000, "scsi", "MR9341-4i", removable=False),
            DiskSeen("sdb", 30_720_000_000, "usb", "Ultra", removable=True),
        ),
        networks=(
            Card("eno1", "igb", address, "up"),
            Card("eno2", "igb", address, "down"),
            Card("eno3", "ice", address, "unknown"),
        ),
        watchdogs=(Watchdog("watchdog0", "iTCO_wdt", "active", "30"),),
        undriven=("disks 1000:10e2 at 0000:01:00.0",),
    )


def test_one_screen_of_it(sysfs: Path) -> None:
    assert lines(look(sysfs)) == [
        "tpm          2.0, a command buffer, as those in processors have (tpm_crb)",
        "secure boot  on",
        "disk         nvme0n1  512.0 GB, nvme  SSD",
        "disk         sda  2048.0 GB, scsi  MR9341-4i",
        "disk         sdb  30.7 GB, usb, removable  Ultra",
        "network      eno1  igb, 52:54:00:00:00:01, link up",
        "network      eno2  igb, 52:54:00:00:00:01, link down",
        "network      eno3  ice, 52:54:00:00:00:01, link unknown",
        "watchdog     watchdog0  iTCO_wdt, 30 s, active",
        "no driver    disks 1000:10e2 at 0000:01:00.0",
    ]


def test_a_box_with_nothing(tmp_path: Path) -> None:
    assert lines(look(tmp_path)) == [
        "tpm          none: the machine cannot be provisioned",
        "secure boot  unknown",
        "disk         none",
        "network      none",
        "watchdog     none",
    ]


@pytest.mark.parametrize(("value", "word"), [(b"\0", "off"), (b"", "off"), (b"\1", "on")])
def test_secure_boot_is_on_only_when_the_firmware_says_so(
    sysfs: Path, value: bytes, word: str
) -> None:
    (sysfs / SECURE_BOOT).write_bytes(b"\6\0\0\0" + value)
    assert look(sysfs).secure_boot == word


def test_a_tpm_that_is_not_known(sysfs: Path) -> None:
    (sysfs / "class/tpm/tpm0/tpm_version_major").unlink()
    (sysfs / "class/tpm/tpm0/device/driver").unlink()
    assert look(sysfs).tpm == Tpm("", "", "an interface that is not known")


def test_what_the_initrd_found_of_the_tpm(sysfs: Path, tmp_path: Path) -> None:
    (tmp_path / "tpm-kind").write_text("integrated")
    assert lines(look(sysfs, tmp_path / "tpm-kind"))[0] == (
        "tpm          2.0, integrated, a command buffer, as those in processors have (tpm_crb)"
    )
    assert look(sysfs, tmp_path / "none") == look(sysfs)


def test_the_command(sysfs: Path) -> None:
    shown = CliRunner().invoke(mosctl, ["check", "--sysfs", str(sysfs)])
    assert shown.exit_code == 0
    assert shown.output.splitlines() == lines(look(sysfs))
    found = CliRunner().invoke(mosctl, ["check", "--sysfs", str(sysfs), "--json"])
    assert json.loads(found.output)["watchdogs"][0]["identity"] == "iTCO_wdt"
