"""Hardware as servers and PCs have it: the generic kernel with NVMe, RAID, USB, e1000e, watchdogs.

The whole chain of the product: provisioned and installed by its media, which are USB sticks, to an
NVMe disk, and booted from there. The firmware cannot boot from the RAID adapter; the kernel has to
drive it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import msgspec
import pytest

from machineos.build.os import appliance, workshop
from machineos.build.os.bootkit import Anchored
from machineos.document.model.hardware import Hardware, PackageName
from machineos.launch.machine import launch_machine
from machineos.launch.request import Request
from machineos.oci.model.place import Place
from machineos.oci.registry.access import Access
from machineos.trust.keys.keyset import SystemRandomness
from machineos.vm.model import BootIndex, Disk, Machine, Size
from machineos.vm.providers.qemu import QemuProvider
from vm.appliance import CLOCK, DISK, Bench, make_keyset, manifest_text, publish, say
from vm.guest import BOOT, SHELL, Boot, Guest

NAME = KEYSET = "hardware"
IMAGE = "machine/hardware:1.0.0"
HARDWARE = Hardware(firmware=(PackageName("firmware-intel-misc"),))
DRIVERS = ("nvme", "megaraid_sas", "xhci_pci", "usb_storage", "e1000e", "i6300esb", "iTCO_wdt")


class Hard(QemuProvider):
    """Machines with nothing in them that is made for guests."""

    def define(self, machine: Machine) -> None:
        super().define(as_hardware(machine))


def as_hardware(machine: Machine) -> Machine:
    config = machine.config
    main, *small = config.disks
    disks = [
        msgspec.structs.replace(main, attach="nvme"),
        Disk(file="raid.qcow2", size=Size(1 << 30), attach="megasas"),
        *(msgspec.structs.replace(disk, attach="usb") for disk in small),
    ]
    if config.cdrom:
        first = BootIndex(0)
        disks.append(
            Disk(file=config.cdrom, format="raw", attach="usb", read_only=True, bootindex=first)
        )
    elif not small:
        disks.append(Disk(file="stick.qcow2", size=Size(1 << 26), attach="usb"))
    config = msgspec.structs.replace(
        config,
        disks=tuple(disks),
        nics=tuple(msgspec.structs.replace(nic, device="e1000e") for nic in config.nics),
        cdrom="",
        boot="" if config.cdrom else "hdd",
        watchdogs=("i6300esb", "itco"),
    )
    return msgspec.structs.replace(machine, config=config)


def install(bench: Bench) -> None:
    """Build for hardware, and launch the machine."""
    bench.discard(NAME)
    keyset = make_keyset(bench, KEYSET)
    shop = replace(bench.shop(), hardware=HARDWARE)
    appliance.build_hostfs(keyset.root, shop)
    appliance.build_bootkit(Anchored(keyset), shop)
    text = manifest_text(bench).replace(f"{bench.keyset.root}/", f"{keyset.root}/")
    publish(bench, text, name=IMAGE, project=f"{KEYSET}:default")
    place = Place.parse(f"oci:{bench.repo}:{IMAGE}", plain_http=False)
    project = keyset.project("default")
    request = Request(NAME, place, keyset, project, disk=DISK, variant=workshop.DEBUG)
    provider = Hard(bench.store, CLOCK)
    launch_machine(request, provider, CLOCK, SystemRandomness(), access=Access(), say=say)


@pytest.fixture(scope="module")
def hardware(bench: Bench, boot: Boot) -> Iterator[Guest]:
    """An appliance that was installed on hardware from sticks, and booted."""
    install(bench)
    with boot(NAME) as guest:
        guest.wait_answer()
        guest.wake()
        yield guest
    bench.discard(NAME)


def test_every_device_has_its_driver(hardware: Guest) -> None:
    assert "cloud" not in hardware.must("uname -r")
    loaded = hardware.must("cat /proc/modules").split()
    assert [name for name in DRIVERS if name not in loaded] == []
    disks = json.loads(hardware.must("lsblk --json -dn -o NAME,TRAN,VENDOR"))["blockdevices"]
    assert {"nvme", "usb"} <= {disk["tran"] for disk in disks}
    assert sum(disk["name"].startswith("sd") for disk in disks) == 2


def test_nothing_was_refused_that_the_hardware_needs(hardware: Guest) -> None:
    assert hardware.sh("dmesg | grep IPE_ACCESS").status == 1


def test_no_process_serves_the_files_of_a_signed_device(hardware: Guest) -> None:
    """Both are built into this kernel too; that it has them without the word of its command line is
    seen with the other kernel (test_lock)."""
    words = hardware.must("cat /proc/cmdline").split()
    assert "initcall_blacklist=fuse_init,virtio_fs_init" in words
    kinds = hardware.must("cat /proc/filesystems").split()
    assert {"fuse", "fuseblk", "virtiofs"} & {*kinds} == set()
    assert hardware.sh("test -e /dev/fuse").status == 1


# Asks the kernel for firmware as a driver does, in a folder that root names besides.
FIRMWARE = r"""
import errno, os, shutil
from pathlib import Path
trigger = "/sys/devices/virtual/misc/test_firmware/trigger_request"
def write(path, text):
    descriptor = os.open(path, os.O_WRONLY)
    try: os.write(descriptor, text.encode())
    except OSError as error: return errno.errorcode[error.errno]
    finally: os.close(descriptor)
    return "loaded"
def load(folder, name):
    write("/sys/module/firmware_class/parameters/path", folder)
    return write(trigger, name)
volume = Path("/usr/lib/firmware")
file = next(path for path in sorted(volume.rglob("*")) if path.is_file())
copy = Path("/run/foreign/firmware") / file.relative_to(volume)
copy.parent.mkdir(parents=True)
shutil.copy(file, copy)
name = f"firmware/{file.relative_to(volume)}"  # in no folder where the kernel looks by itself
print(load("/none", str(file.relative_to(volume))), load("/usr/lib", name), load("/none", name))
print(load("/run/foreign", name))
print(copy)
"""


@pytest.mark.attack(
    "root",
    "has a driver load firmware from a folder of its own (firmware_class.path)",
    "EACCES; from the volume of modules it is loaded",
)
def test_firmware_comes_from_the_volume_that_the_policy_names(hardware: Guest) -> None:
    """The control is the same file by the same way, where it lies in the volume."""
    hardware.must("modprobe test_firmware")
    own, foreign, copy = hardware.python(FIRMWARE).splitlines()
    assert own.split() == ["loaded", "loaded", "ENOENT"]
    # The kernel goes on to its own folders, where that is not; why it did not take it, it logs.
    assert foreign == "ENOENT"
    hardware.must(f"dmesg | grep -q 'loading {copy} failed with error -13'")
    hardware.wait_until(f"journalctl -b --no-pager | grep ipe_op=FIRMWARE | grep -q {copy}", SHELL)
    hardware.must("modprobe -r test_firmware && rm -r /run/foreign")


def test_a_watchdog_runs_that_nobody_stops(hardware: Guest) -> None:
    """The card's comes first; that of the chipset appears because its own driver was loaded."""
    names = hardware.must("cat /sys/class/watchdog/watchdog*/identity").splitlines()
    assert names == ["i6300ESB timer", "iTCO_wdt"]
    assert hardware.must("cat /sys/class/watchdog/watchdog0/state").strip() == "active"
    options = hardware.must("cat /sys/class/watchdog/watchdog*/nowayout").split()
    assert options == ["1", "1"]
    assert hardware.must("cat /proc/sys/kernel/softlockup_panic").strip() == "1"


def test_the_machine_says_what_of_it_works(hardware: Guest) -> None:
    found = json.loads(hardware.must("mosctl check --json"))
    assert found["secure_boot"] == "on"
    assert found["tpm"]["version"] == "2.0"
    assert found["watchdogs"][0]["identity"] == "i6300ESB timer"
    assert {disk["bus"] for disk in found["disks"]} >= {"nvme", "usb", "scsi"}
    assert [card["driver"] for card in found["networks"]] == ["e1000e"]


def test_the_watchdog_that_nobody_opened_ends_no_machine(hardware: Guest) -> None:
    """That of the chipset runs from when its driver came, and restarts after less than this."""
    hardware.wait_until("test $(cut -d. -f1 /proc/uptime) -ge 180", SHELL)
    assert "iTCO_wdt" in hardware.must("cat /sys/class/watchdog/watchdog*/identity")


def test_a_machine_whose_first_process_hangs_is_restarted(hardware: Guest) -> None:
    """systemd freezes itself when it has crashed, and feeds nobody any more. The last one here.
    What is waited for is what systemd can be told, not what it is told for every day."""
    hardware.must(
        "busctl set-property org.freedesktop.systemd1 /org/freedesktop/systemd1 "
        "org.freedesktop.systemd1.Manager RuntimeWatchdogUSec t 20000000"
    )
    start = CLOCK.monotonic()
    hardware.terminal.type("kill -SEGV 1\n")
    hardware.terminal.wait("handing over to systemd", SHELL + BOOT)
    say(f"restarted after {CLOCK.monotonic() - start:.0f} s")
    hardware.wake()
    # WDIOF_CARDRESET: the card says that it was the one.
    assert hardware.must("cat /sys/class/watchdog/watchdog0/bootstatus").strip() == "32"
