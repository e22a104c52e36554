"""Loading drivers in a thread, and what happens when one cannot be loaded. A kernel that takes our
modules is in tests/vm."""

from __future__ import annotations

import inspect
import threading
from pathlib import Path

import pytest

from machineos.boot.drivers import Devices, Drivers, read_text
from machineos.document.between.bootsettings import Settings
from machineos.errors import BootError, MissingError, ToolError

DISK = "virtio:d00000002v00001AF4"
Table = tuple[tuple[str, tuple[str, ...]], ...]


def settings(
    *names: str, drivers: Table = (), watchdogs: Table = (), ext4: tuple[str, ...] = ()
) -> Settings:
    return Settings(mode="run", policy_version="0001", command_line="", kernel="",
                    modules_volume="", epoch=0, modules=names, drivers=drivers,
                    watchdogs=watchdogs, filesystems={"ext4": ext4})  # fmt: skip


def test_aliases_of_a_machine(tmp_path: Path) -> None:
    for bus, device, text in (
        ("virtio", "virtio0", f"{DISK}\n"),
        ("pci", "0000:00:01.0", "pci:x"),
        ("usb", "1-1", "usb:y"),
    ):
        folder = tmp_path / "bus" / bus / "devices" / device
        folder.mkdir(parents=True)
        (folder / "modalias").write_text(text)
    (tmp_path / "bus/platform/devices/none").mkdir(parents=True)
    (tmp_path / "bus/cpu").mkdir()
    wanted = ("virtio", "pci", "platform", "cpu", "no-such")
    devices = Devices(tmp_path, wanted)
    assert devices.aliases() == {DISK, "pci:x"}
    assert Devices(tmp_path / "nowhere", wanted).aliases() == set()
    later = tmp_path / "bus/pci/devices/0000:00:02.0"
    later.mkdir()
    (later / "modalias").write_text("pci:z")
    assert devices.aliases() == {DISK, "pci:x", "pci:z"}


def test_a_module_that_is_not_there(tmp_path: Path) -> None:
    """The thread ends, and whoever waits is told, each time."""
    drivers = Drivers(settings("none.ko"), tmp_path, tmp_path)
    for _ in range(2):
        with pytest.raises(MissingError, match=r"none\.ko"):
            drivers.wait()
    drivers = Drivers(settings(), tmp_path, tmp_path)
    drivers.wait()
    with pytest.raises(MissingError, match=r"vfat\.ko"):
        drivers.load(["vfat.ko"])
    drivers.load([])


def test_what_cannot_be_read_is_told_too(tmp_path: Path) -> None:
    loop = tmp_path / "loop.ko"
    loop.symlink_to("loop.ko")
    with pytest.raises(BootError) as caught:
        Drivers(settings("loop.ko"), tmp_path, tmp_path).wait()
    assert caught.value.message == (
        f"kernel modules: [Errno 40] Too many levels of symbolic links: '{loop}'"
    )


def test_where_modules_and_devices_are() -> None:
    places = inspect.signature(Drivers).parameters
    assert places["folder"].default == Path("/usr/lib/machineos/boot/modules")
    assert places["sysfs"].default == Path("/sys")


def machine(folder: Path, *present: str) -> Path:
    for number, alias in enumerate(present):
        path = folder / f"bus/{alias.partition(':')[0]}/devices/{number}/modalias"
        path.parent.mkdir(parents=True)
        path.write_text(alias)
    return folder


def test_only_what_a_device_here_wants(tmp_path: Path) -> None:
    """A file that is no module is refused by the kernel by name: so one sees which were tried."""
    sysfs = machine(tmp_path / "sys", DISK, "pci:x")
    for name in ("first", "scsi", "ahci", "virtio", "nvme"):
        (tmp_path / f"{name}.ko").write_bytes(b"no module")
    wanted = (("nvme:*", ("nvme.ko",)), ("virtio:d00000002v*", ("virtio.ko",)),
              ("pci:x*", ("scsi.ko", "ahci.ko")))  # fmt: skip
    with pytest.raises(ToolError, match=r"first\.ko"):
        Drivers(settings("first.ko", drivers=wanted), tmp_path, sysfs).wait()
    with pytest.raises(ToolError, match=r"virtio\.ko"):
        Drivers(settings(drivers=wanted), tmp_path, sysfs).wait()
    with pytest.raises(ToolError, match=r"scsi\.ko"):
        Drivers(settings(drivers=(wanted[0], wanted[2])), tmp_path, sysfs).wait()
    drivers = Drivers(settings(drivers=wanted[:1]), tmp_path, sysfs)
    drivers.wait()
    assert not drivers.more()


def test_what_was_begun_is_told_to_who_loads_it(tmp_path: Path) -> None:
    drivers = Drivers(settings(ext4=("ext4.ko",)), tmp_path, tmp_path)
    drivers.wait()
    before = threading.active_count()
    drivers.begin(())
    assert threading.active_count() == before, "there is nothing to do"
    drivers.begin(("ext4.ko",))
    with pytest.raises(MissingError, match=r"ext4\.ko"):
        drivers.load(("ext4.ko",))


def test_a_boot_goes_on_without_a_watchdog_that_the_kernel_does_not_take(tmp_path: Path) -> None:
    """All are tried, and what comes after them is what every boot needs."""
    sysfs = machine(tmp_path / "sys", "pci:w", "pci:x")
    for name in ("i6300esb", "lpc_ich"):
        (tmp_path / f"{name}.ko").write_bytes(b"no module")
    table = (("pci:w", ("i6300esb.ko",)), ("pci:x", ("lpc_ich.ko",)), ("pci:w", ("none.ko",)))
    Drivers(settings(watchdogs=table), tmp_path, sysfs).wait()
    with pytest.raises(MissingError, match=r"first\.ko"):
        Drivers(settings("first.ko", watchdogs=table), tmp_path, sysfs).wait()


def test_what_appears_later_is_seen_later(tmp_path: Path) -> None:
    (tmp_path / "usb.ko").write_bytes(b"no module")
    drivers = Drivers(settings(drivers=(("usb:*", ("usb.ko",)),)), tmp_path, tmp_path / "sys")
    drivers.wait()
    assert not drivers.more()
    machine(tmp_path / "sys", "usb:v1")
    with pytest.raises(ToolError, match=r"usb\.ko"):
        drivers.more()


def test_a_small_pseudo_file(tmp_path: Path) -> None:
    path = tmp_path / "serial"
    path.write_bytes(b"SN-1 \xff\n")
    assert read_text(path) == "SN-1 �"
    assert read_text(tmp_path / "none") == ""
    path.write_bytes(b"x" * 100_000)
    assert len(read_text(str(path))) == 65536
