"""QEMU's command line: one golden list, and what each key of machine.yaml changes in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from msgspec.structs import replace

from machineos.vm.model import (
    BootIndex,
    Config,
    Disk,
    Endpoint,
    FwCfg,
    Machine,
    Nic,
    Port,
    Size,
    Smbios,
)
from machineos.vm.paths import MachinePaths
from machineos.vm.provider import AS_DEFINED, StartOptions
from machineos.vm.qemu.plan import plan_qemu

Attach = Literal["virtio", "scsi", "nvme", "ide", "usb", "megasas"]
Kind = Literal["ssd", "hdd", "cdrom"]
GOLDEN = Path(__file__).with_name("golden")
PATHS = MachinePaths(
    definition=Path("/c/vm1/machine.yaml"),
    state=Path("/s/vm1"),
    sockets=Path("/r/x"),
    lock=Path("/s/locks/vm1"),
)
FULL = Config(
    name="vm1",
    disks=(
        Disk(file="vm1.qcow2", size=Size(8 << 30)),
        Disk(file="/data/sudi.vfat", format="raw", type="hdd"),
    ),
    nics=(Nic(ports=(Port(Endpoint(28080), Endpoint(80)),)),),
    boot="hdd",
    cdrom="/data/install.iso",
    smbios=Smbios(serial="S-1", product="p,q", uuid="6c8a6a0e-2f0c-4c57-9f5e-0f5f3e0c8a11"),
)


def plan(
    config: Config,
    accelerator: str = "tcg",
    *,
    options: StartOptions = AS_DEFINED,
    ephemeral: bool = False,
) -> list[str]:
    machine = Machine(name="vm1", config=config, ephemeral=ephemeral)
    return plan_qemu(machine, PATHS, accelerator, options)


def values(argv: list[str], option: str) -> list[str]:
    return [argv[index + 1] for index, word in enumerate(argv) if word == f"-{option}"]


def nodes(argv: list[str], option: str) -> list[dict[str, Any]]:
    return [json.loads(value) for value in values(argv, option) if value.startswith("{")]


@pytest.mark.parametrize(
    ("name", "accelerator", "config"),
    [
        ("full-tcg", "tcg", FULL),
        ("full-kvm", "kvm", FULL),
        ("small", "tcg", Config(name="vm1", tpm=False, secure_boot=False, serial="false")),
    ],
)
def test_golden(name: str, accelerator: str, config: Config) -> None:
    found = "\n".join(plan(config, accelerator)) + "\n"
    assert found == (GOLDEN / f"{name}.txt").read_text()


def test_flushes_reach_the_disk_unless_ephemeral() -> None:
    for ephemeral in (False, True):
        writable = [
            node
            for node in nodes(plan(FULL, ephemeral=ephemeral), "blockdev")
            if not node["read-only"]
        ]
        assert len(writable) == 3  # two disks and the variables
        for node in writable:
            assert node["cache"] == {"direct": False, "no-flush": ephemeral}
            assert node["file"]["cache"] == node["cache"]
    assert "unsafe" not in " ".join(plan(FULL))


def test_formats_are_never_probed() -> None:
    assert {node["driver"] for node in nodes(plan(FULL), "blockdev")} == {"qcow2", "raw"}


def test_forwards_bind_to_loopback_unless_said() -> None:
    open_nic = Nic(ports=(Port(Endpoint(53, "0.0.0.0"), Endpoint(53, "10.0.2.15"), "udp"),))
    assert values(plan(FULL), "netdev") == ["user,id=net0,hostfwd=tcp:127.0.0.1:28080-:80"]
    argv = plan(replace(FULL, nics=(open_nic,)))
    assert values(argv, "netdev") == ["user,id=net0,hostfwd=udp:0.0.0.0:53-10.0.2.15:53"]


@pytest.mark.parametrize(
    ("attach", "kind", "driver", "bus"),
    [
        ("virtio", "ssd", "virtio-blk-pci", None),
        ("scsi", "ssd", "scsi-hd", "scsi.0"),
        ("nvme", "ssd", "nvme", None),
        ("ide", "hdd", "ide-hd", "ide.0"),
        ("usb", "hdd", "usb-storage", "usb.0"),
        ("virtio", "cdrom", "scsi-cd", "scsi.0"),
        ("ide", "cdrom", "ide-cd", "ide.0"),
    ],
)
def test_attach(attach: Attach, kind: Kind, driver: str, bus: str | None) -> None:
    argv = plan(Config(name="vm1", disks=(Disk(file="/d", attach=attach, type=kind),)))
    (device,) = nodes(argv, "device")[:1]
    assert (device["driver"], device.get("bus")) == (driver, bus)
    assert (nodes(argv, "blockdev")[2]["read-only"]) is (kind == "cdrom")
    controllers = [value.split(",")[0] for value in values(argv, "device")]
    if bus in {"scsi.0", "usb.0"}:
        assert {"scsi.0": "virtio-scsi-pci", "usb.0": "qemu-xhci"}[bus] in controllers


@pytest.mark.parametrize(
    ("boot", "first", "wanted"),
    [
        ("hdd", None, [0, 1, 2]),
        ("cdrom", None, [1, 2, 0]),
        ("", None, [None, None, None]),
        ("hdd", BootIndex(1), [1, 0, 2]),
        ("hdd", BootIndex(None), [None, 0, 1]),
        ("", BootIndex(7), [7, None, None]),
    ],
)
def test_boot_order(
    boot: Literal["cdrom", "hdd", ""], first: BootIndex | None, wanted: list[int | None]
) -> None:
    disks = (Disk(file="/a", bootindex=first), Disk(file="/b"))
    argv = plan(Config(name="vm1", disks=disks, cdrom="/c.iso", boot=boot))
    found = {str(node["drive"]): node.get("bootindex") for node in nodes(argv, "device")}
    assert [found["disk0"], found["disk1"], found["cdrom"]] == wanted


def test_secure_boot_and_tpm_can_be_left_out() -> None:
    argv = " ".join(plan(replace(FULL, secure_boot=False, tpm=False)))
    assert "smm=off" in argv
    assert "property=secure" not in argv
    assert "tpm" not in argv


def test_screen_only_when_asked() -> None:
    assert "-vnc" not in plan(FULL)
    argv = plan(replace(FULL, gui=True))
    assert values(argv, "vnc") == ["unix:/r/x/vnc.sock"]
    assert values(argv, "display") == ["none"]


def test_commas_cannot_add_options() -> None:
    config = replace(FULL, fw_cfg=(FwCfg(name="opt/a", string="x,file=/etc/shadow"),))
    argv = plan(config)
    assert values(argv, "fw_cfg") == ["name=opt/a,string=x,,file=/etc/shadow"]
    assert "product=p,,q" in values(argv, "smbios")[0]


def test_options_of_one_start() -> None:
    assert "-S" in plan(FULL, options=StartOptions(paused=True))
    assert values(plan(FULL, options=StartOptions(snapshot="base")), "loadvm") == ["base"]
    argv = plan(FULL, options=StartOptions(no_reboot=True))
    assert values(argv, "action") == ["reboot=shutdown"]


def device(**disk: Any) -> dict[str, Any]:  # noqa: ANN401 (any field)
    """The device of a machine's only disk."""
    argv = plan(Config(name="vm1", disks=(Disk(**{"file": "/d/data.raw", **disk}),)))
    return nodes(argv, "device")[0]


def test_all_that_a_disk_says_of_itself() -> None:
    common = {"drive": "disk0", "id": "dev-disk0", "serial": "data"}
    assert device(addr="3.1", blocksize=4096, bootindex=BootIndex(2)) == {
        **common,
        "driver": "virtio-blk-pci",
        "logical_block_size": 4096,
        "physical_block_size": 4096,
        "addr": "3.1",
        "bootindex": 2,
    }
    assert device(attach="scsi") == {
        **common, "driver": "scsi-hd", "bus": "scsi.0", "rotation_rate": 1,
    }  # fmt: skip
    assert device(attach="ide", type="hdd") == {
        **common, "driver": "ide-hd", "bus": "ide.0", "rotation_rate": 7200,
    }  # fmt: skip
    assert device(attach="nvme") == {**common, "driver": "nvme"}
    assert device(attach="usb") == {**common, "driver": "usb-storage", "bus": "usb.0"}
    assert device(attach="megasas") == {
        **common, "driver": "scsi-hd", "bus": "raid.0", "rotation_rate": 1,
    }  # fmt: skip
    assert device(type="cdrom", attach="ide") == {
        "drive": "disk0", "id": "dev-disk0", "driver": "ide-cd", "bus": "ide.0",
    }  # fmt: skip
    assert device(file="/d/" + "n" * 30 + ".raw")["serial"] == "n" * 20


def test_every_ide_disk_has_a_bus() -> None:
    disks = tuple(Disk(file=f"/{name}", attach="ide") for name in "abc")
    found = nodes(plan(Config(name="vm1", disks=disks)), "device")
    assert [one["bus"] for one in found[:3]] == ["ide.0", "ide.1", "ide.2"]


@pytest.mark.parametrize(
    ("config", "controllers"),
    [
        ({"disks": (Disk(file="/d"),)}, []),
        ({"disks": (Disk(file="/d", attach="scsi"),)}, ["virtio-scsi-pci,id=scsi"]),
        ({"disks": (Disk(file="/d", type="cdrom"),)}, ["virtio-scsi-pci,id=scsi"]),
        ({"disks": (Disk(file="/d", type="cdrom", attach="ide"),)}, []),
        ({"cdrom": "/c.iso"}, ["virtio-scsi-pci,id=scsi"]),
        ({"disks": (Disk(file="/d", attach="usb"),)}, ["qemu-xhci,id=usb"]),
        ({"gui": True}, ["qemu-xhci,id=usb"]),
    ],
)
def test_controllers_are_there_for_what_needs_them(
    config: dict[str, Any], controllers: list[str]
) -> None:
    found = values(plan(Config(name="vm1", **config)), "device")
    wanted = [one for one in found if one.startswith(("virtio-scsi", "qemu-xhci"))]
    assert wanted == controllers


def test_the_cdrom_is_on_the_scsi_bus() -> None:
    argv = plan(Config(name="vm1", cdrom="/c.iso", boot="cdrom"))
    assert nodes(argv, "device")[-1] == {
        "driver": "scsi-cd", "bus": "scsi.0", "drive": "cdrom", "id": "cdrom", "bootindex": 0,
    }  # fmt: skip
    assert nodes(argv, "blockdev")[-1]["read-only"] is True


def test_all_that_an_interface_says_of_itself() -> None:
    nic = Nic(
        id="x", device="e1000", mac="52:54:00:AA:00:01", addr="4", romfile="/r",
        bootindex=BootIndex(0),
    )  # fmt: skip
    argv = plan(Config(name="vm1", nics=(nic, Nic())))
    full, plain = nodes(argv, "device")[-2:]
    assert full == {
        "driver": "e1000", "netdev": "net0", "id": "nic-x", "romfile": "/r",
        "mac": "52:54:00:aa:00:01", "addr": "4", "bootindex": 0,
    }  # fmt: skip
    assert plain == {"driver": "virtio-net-pci", "netdev": "net1", "id": "nic-nic0", "romfile": ""}
    assert values(argv, "netdev") == ["user,id=net0", "user,id=net1"]


def test_a_screen_has_a_keyboard_and_a_pointer() -> None:
    found = values(plan(replace(FULL, gui=True)), "device")
    assert found[-3:] == ["VGA", "usb-kbd,bus=usb.0", "usb-tablet,bus=usb.0"]


def test_a_firmware_item_from_a_file() -> None:
    argv = plan(replace(FULL, fw_cfg=(FwCfg(name="opt/a", file="/f,g"),)))
    assert values(argv, "fw_cfg") == ["name=opt/a,file=/f,,g"]


def test_watchdogs_are_there_when_asked_and_bite() -> None:
    quiet = plan(Config(name="vm1"))
    assert "i6300esb" not in quiet
    assert not [word for word in quiet if "noreboot" in word]
    assert "action" not in " ".join(quiet)
    card = plan(Config(name="vm1", watchdogs=("i6300esb",)))
    assert "i6300esb" in values(card, "device")
    assert values(card, "action") == ["watchdog=reset"]
    chipset = plan(Config(name="vm1", watchdogs=("itco",)))
    assert "ICH9-LPC.noreboot=false" in values(chipset, "global")
    assert "i6300esb" not in chipset


def test_the_driver_of_an_interface() -> None:
    argv = plan(Config(name="vm1", nics=(Nic(device="e1000e"),)))
    assert nodes(argv, "device")[-1]["driver"] == "e1000e"
