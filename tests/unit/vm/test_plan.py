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
from machineos.vm.plan import StartOptions, plan_qemu
from machineos.vm.store import MachinePaths

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


NO_OPTIONS = StartOptions()


def plan(
    config: Config,
    accelerator: str = "tcg",
    *,
    ephemeral: bool = False,
    options: StartOptions = NO_OPTIONS,
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
def test_attach(
    attach: Literal["virtio", "scsi", "nvme", "ide", "usb"],
    kind: Literal["ssd", "hdd", "cdrom"],
    driver: str,
    bus: str | None,
) -> None:
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
