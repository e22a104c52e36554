"""What of this box works: TPM, Secure Boot, disks, network cards, watchdogs.

Owns the reading of sysfs below a root that is given, and what it means. Nothing is asked of the
TPM: its kind is what the initrd of an install medium found (``trust.seal.tpmkind``) and left, and
of an installed machine only how it is spoken to is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from machineos.host.disk import blockdev

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# UEFI specification 2.10, section 3.3: four bytes of attributes, then the value.
SECURE_BOOT = "firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
INTERFACES = {
    "tpm_crb": "a command buffer, as those in processors have",
    "tpm_tis": "registers, as chips of their own have",
}
_BUSES = (("/usb", "usb"), ("/nvme", "nvme"), ("/virtio", "virtio"), ("/ata", "ata"),
          ("/mmc", "mmc"))  # fmt: skip
# Classes of PCI (PCI Code and ID Assignment): what a machine cannot do without.
_KINDS = {"0x01": "disks", "0x02": "network"}


class Tpm(msgspec.Struct, frozen=True):
    """``version`` is 2.0 or 1.2, empty when it is not told; ``kind`` integrated, discrete, virtual
    or unknown, empty when nobody asked."""

    version: str
    driver: str
    interface: str
    kind: str = ""


class DiskSeen(msgspec.Struct, frozen=True):
    """A disk; ``size`` in bytes."""

    name: str
    size: int
    bus: str
    model: str
    removable: bool


class Card(msgspec.Struct, frozen=True):
    """A network card; ``link`` is whether a cable is in, where the kernel knows."""

    name: str
    driver: str
    address: str
    link: str


class Watchdog(msgspec.Struct, frozen=True):
    """``state`` is active once somebody opened it; ``seconds`` until it resets the machine."""

    name: str
    identity: str
    state: str
    seconds: str


class Box(msgspec.Struct, frozen=True):
    """``undriven``: devices for disks or network that no driver took, ``KIND VENDOR:DEVICE``."""

    tpm: Tpm | None
    secure_boot: str
    disks: tuple[DiskSeen, ...]
    networks: tuple[Card, ...]
    watchdogs: tuple[Watchdog, ...]
    undriven: tuple[str, ...]


def look(sysfs: Path, kind: Path | None = None) -> Box:
    """Return what is below ``sysfs`` (/sys), and what kind of TPM the file ``kind`` says, if it is
    there."""
    return Box(
        tpm=_tpm(sysfs / "class/tpm/tpm0", _text(kind) if kind is not None else ""),
        secure_boot=_secure_boot(sysfs / SECURE_BOOT),
        disks=tuple(_disks(sysfs / "class/block")),
        networks=tuple(_cards(sysfs / "class/net")),
        watchdogs=tuple(_watchdogs(sysfs / "class/watchdog")),
        undriven=tuple(_undriven(sysfs / "bus/pci/devices")),
    )


def lines(box: Box) -> list[str]:
    """Return it for one screen, a line for each thing; what is missing is said too."""
    return [
        _tpm_line(box.tpm),
        f"secure boot  {box.secure_boot}",
        *_disk_lines(box),
        *_named("network", [_card_line(card) for card in box.networks]),
        *_watchdog_lines(box),
        *(f"no driver    {device}" for device in box.undriven),
    ]


def early_lines(box: Box) -> list[str]:
    """Return what an initrd can tell of it: it has drivers for disks and watchdogs, and no more."""
    return [_tpm_line(box.tpm), *_disk_lines(box), *_watchdog_lines(box)]


def _named(kind: str, found: list[str]) -> list[str]:
    return [f"{kind:<13}{line}" for line in found or ["none"]]


def _tpm_line(tpm: Tpm | None) -> str:
    if tpm is None:
        return "tpm          none: the machine cannot be provisioned"
    kind = f"{tpm.kind}, " if tpm.kind else ""
    return f"tpm          {tpm.version}, {kind}{tpm.interface} ({tpm.driver})"


def _disk_lines(box: Box) -> list[str]:
    return _named("disk", [_disk_line(disk) for disk in box.disks])


def _watchdog_lines(box: Box) -> list[str]:
    return _named("watchdog", [_watchdog_line(one) for one in box.watchdogs])


def _disk_line(disk: DiskSeen) -> str:
    removable = ", removable" if disk.removable else ""
    return f"{disk.name}  {disk.size / 1e9:.1f} GB, {disk.bus}{removable}  {disk.model}".rstrip()


def _card_line(card: Card) -> str:
    return f"{card.name}  {card.driver}, {card.address}, link {card.link}"


def _watchdog_line(one: Watchdog) -> str:
    return f"{one.name}  {one.identity}, {one.seconds} s, {one.state}"


def _tpm(folder: Path, kind: str) -> Tpm | None:
    if not folder.exists():
        return None
    major = _text(folder / "tpm_version_major")
    driver = _driver(folder / "device")
    version = {"2": "2.0", "1": "1.2"}.get(major, "")
    interface = INTERFACES.get(driver, "an interface that is not known")
    return Tpm(version, driver, interface, kind)


def _secure_boot(path: Path) -> str:
    try:
        value = path.read_bytes()[4:]
    except OSError:
        return "unknown"
    return "on" if value == b"\1" else "off"


def _disks(folder: Path) -> Iterator[DiskSeen]:
    for disk in blockdev.disks(folder) if folder.is_dir() else ():
        entry = folder / disk.name
        model = _text(entry / "device/model")
        yield DiskSeen(disk.name, disk.size, bus_of(str(entry.resolve())), model, disk.removable)


def bus_of(path: str) -> str:
    """Return what a block device hangs on, by its path in sysfs."""
    return next((bus for part, bus in _BUSES if part in path), "scsi")


def _cards(folder: Path) -> Iterator[Card]:
    for entry in _entries(folder):
        if (entry / "device").exists():  # a bridge, lo and the like are of nobody
            carrier = {"1": "up", "0": "down"}.get(_text(entry / "carrier"), "unknown")
            yield Card(entry.name, _driver(entry / "device"), _text(entry / "address"), carrier)


def _watchdogs(folder: Path) -> Iterator[Watchdog]:
    for entry in _entries(folder):
        words = (_text(entry / name) for name in ("identity", "state", "timeout"))
        yield Watchdog(entry.name, *words)


def _undriven(folder: Path) -> Iterator[str]:
    for entry in _entries(folder):
        kind = _KINDS.get(_text(entry / "class")[:4])
        if kind is not None and not _driver(entry):
            ids = (_text(entry / name).removeprefix("0x") for name in ("vendor", "device"))
            yield f"{kind} {':'.join(ids)} at {entry.name}"


def _driver(device: Path) -> str:
    driver = device / "driver"
    return driver.resolve().name if driver.exists() else ""


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:  # a card that is off has no carrier to read
        return ""
