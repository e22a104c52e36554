"""machine.yaml: the definition of one virtual machine.

Follows the file printed in seed 002 ("Machine configuration"); ``smbios`` and ``fw-cfg`` are our
additions. Invariant: a ``Machine`` for which ``check`` finds nothing can be started as far as the
document alone can tell; what is missing on the disk shows at start.
"""

from __future__ import annotations

import ipaddress
import re
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self, get_args

import msgspec

from machineos.core.size import parse_size

if TYPE_CHECKING:
    from collections.abc import Iterator


NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_PCI = re.compile(r"(0x)?[0-9a-f]{1,2}(\.[0-7])?")
_FW_CFG = re.compile(r"opt/[A-Za-z0-9._/-]{1,50}")
_MAX_DISK = 64 << 40
Kind = Literal["kvm"]  # each has a provider (machineos.vm.providers)
Status = Literal["initialized", "stopped", "starting", "running", "stopping", "failed"]
STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True, slots=True)
class Size:
    """A number of bytes, written ``8GiB`` or ``120000000000``."""

    bytes: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a size. Raises: ValueError."""
        return cls(parse_size(text))


@dataclass(frozen=True, slots=True)
class BootIndex:
    """A place in the boot order: ``0``, ``1`` ... or ``off``; None is no opinion."""

    value: int | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``off``, the empty string or a number up to 99. Raises: ValueError."""
        if text in {"", "off"}:
            return cls(None)
        if text.isascii() and text.isdigit() and len(text) <= 2:
            return cls(int(text))
        raise ValueError(f"{text[:20]!r} is neither a number from 0 to 99 nor off")


class Endpoint(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """One side of a forwarded port; an empty address is 127.0.0.1 on the host, any in the guest."""

    port: int
    address: str = ""


class Port(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """One forwarded port."""

    host: Endpoint
    guest: Endpoint
    protocol: Literal["tcp", "udp"] = "tcp"


class Nic(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """One network interface; ``user`` is QEMU's own network, which needs no privilege."""

    id: str = "nic0"
    device: Literal["virtio-net", "e1000", "e1000e"] = "virtio-net"
    network: Literal["user"] = "user"
    mac: str = ""
    addr: str = ""
    bootindex: BootIndex = BootIndex(None)
    romfile: str = ""
    ports: tuple[Port, ...] = ()


class Disk(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """One disk. Size 0 means that ``file`` exists and is imported: copied into the machine's own
    folder, unless it is read-only. A name without a slash lives in that folder."""

    file: str
    format: Literal["", "qcow2", "raw"] = ""
    size: Size = Size(0)
    attach: Literal["virtio", "scsi", "nvme", "ide", "usb", "megasas"] = "virtio"
    type: Literal["ssd", "hdd", "cdrom"] = "ssd"
    blocksize: int = 0
    addr: str = ""
    bootindex: BootIndex | None = None
    read_only: bool = False

    @property
    def kind(self) -> Literal["qcow2", "raw"]:
        """The image format: raw for a CD, else qcow2 unless said."""
        return self.format or ("raw" if self.type == "cdrom" else "qcow2")

    @property
    def frozen(self) -> bool:
        """Whether the guest can only read it."""
        return self.read_only or self.type == "cdrom"


class Smbios(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """What the firmware tells the guest about itself (SMBIOS type 1). The appliance compares
    serial and uuid with its device identity."""

    manufacturer: str = ""
    product: str = ""
    version: str = ""
    serial: str = ""
    sku: str = ""
    uuid: str = ""


class FwCfg(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """One firmware configuration item, from a file or as text."""

    name: str
    file: str = ""
    string: str = ""


class CloudInit(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """Known so that it can be refused by name."""

    user_data: str = ""
    network_config: str = ""
    meta_data: str = ""


class Config(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """The hardware."""

    name: str = ""
    cpus: int = 2
    memory: int = 2048
    serial: str = "true"
    nics: tuple[Nic, ...] = ()
    disks: tuple[Disk, ...] = ()
    boot: Literal["cdrom", "hdd", ""] = ""
    cdrom: str = ""
    uefi: bool = True
    uefi_code: str = ""
    uefi_vars: str = ""
    tpm: bool = True
    tpm_version: Literal["2.0", "1.2"] = "2.0"
    secure_boot: bool = True
    gui: bool = False
    smbios: Smbios | None = None
    fw_cfg: tuple[FwCfg, ...] = ()
    watchdogs: tuple[Literal["i6300esb", "itco"], ...] = ()
    cloud_init: CloudInit | None = None


class Machine(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """One virtual machine. ``status`` is output only: accepted, so that what ``machine info``
    printed can be fed back, and never stored."""

    name: str = ""
    type: Kind = "kvm"
    description: str = ""
    ephemeral: bool = False
    config: Config = Config()
    status: str = ""


def default_machine(name: str, *, secure: bool) -> Machine:
    """Return the definition that ``machine init`` takes without a file. A secure one still needs
    ``uefi-vars``, the keys that its firmware checks with, before it can start."""
    config = Config(
        name=name,
        nics=(Nic(),),
        disks=(Disk(file=f"{name}.qcow2", size=Size(50 << 30)),),
        boot="hdd",
        secure_boot=secure,
    )
    return Machine(name=name, config=config)


def check(machine: Machine) -> Iterator[tuple[str, str]]:
    """Yield every fault of ``machine`` as path and message."""
    config = machine.config
    if not NAME.fullmatch(machine.name):
        shown = repr(machine.name[:80])
        yield "name", f"{shown} is not a name (a-z, 0-9 and -, 63 at most, no - in front)"
    if config.name != machine.name:
        yield "config.name", f"is {config.name[:80]!r}, but the machine is {machine.name[:80]!r}"
    if machine.status and machine.status not in STATUSES:
        yield "status", f"{machine.status[:40]!r} is not one of: {', '.join(STATUSES)}"
    yield from _check_hardware(config)
    for index, disk in enumerate(config.disks):
        yield from _check_disk(disk, f"config.disks[{index}]")
    yield from _unique("config.disks[{}].file", [disk.file for disk in config.disks])
    for index, nic in enumerate(config.nics):
        yield from _check_nic(nic, f"config.nics[{index}]")
    yield from _unique("config.nics[{}].id", [nic.id for nic in config.nics])
    yield from _check_ports(config)
    for index, item in enumerate(config.fw_cfg):
        yield from _check_fw_cfg(item, f"config.fw-cfg[{index}]")
    yield from _unique("config.fw-cfg[{}].name", [item.name for item in config.fw_cfg])
    if config.smbios is not None:
        yield from _check_smbios(config.smbios)


def _check_hardware(config: Config) -> Iterator[tuple[str, str]]:
    if not 1 <= config.cpus <= 255:
        yield "config.cpus", f"{config.cpus} is not between 1 and 255"
    if not 128 <= config.memory <= 4 << 20:
        yield "config.memory", f"{config.memory} MiB is not between 128 and {4 << 20}"
    if config.serial not in {"true", "false", ""}:
        yield "config.serial", f"{config.serial[:40]!r} is neither true nor false"
    if not config.uefi:
        yield "config.uefi", "only machines with UEFI firmware are supported"
    if config.tpm and config.tpm_version != "2.0":
        yield "config.tpm-version", "only TPM 2.0 is supported"
    if config.cloud_init is not None:
        yield "config.cloud-init", "is not supported"
    if config.boot == "cdrom" and not _has_cdrom(config):
        yield "config.boot", "is cdrom, but there is no cdrom"
    for key, path in (
        ("cdrom", config.cdrom),
        ("uefi-code", config.uefi_code),
        ("uefi-vars", config.uefi_vars),
    ):
        if path:
            yield from _check_path(path, f"config.{key}", bare=False)


def _has_cdrom(config: Config) -> bool:
    return bool(config.cdrom) or any(disk.type == "cdrom" for disk in config.disks)


def _check_path(path: str, where: str, *, bare: bool) -> Iterator[tuple[str, str]]:
    if any(ord(char) < 32 for char in path):
        yield where, "holds a control character"
    elif path.startswith("/"):
        return
    elif "/" in path or path in {"", ".", ".."} or not bare:
        yield where, f"{path[:80]!r} is not an absolute path" + (" or a plain name" if bare else "")
    elif path.startswith(("-", ".")) or path in {"tpm", "sockets", "uefi-code.fd", "run.json"}:
        yield where, f"{path[:80]!r} cannot be used as the name of a disk"


def _check_disk(disk: Disk, where: str) -> Iterator[tuple[str, str]]:
    yield from _check_path(disk.file, f"{where}.file", bare=True)
    if disk.size.bytes % 512 or disk.size.bytes > _MAX_DISK:
        yield f"{where}.size", f"{disk.size.bytes} bytes is not a multiple of 512 up to 64 TiB"
    if disk.size.bytes and disk.frozen:
        yield f"{where}.size", "an empty disk that can only be read is of no use"
    if disk.type == "cdrom" and disk.attach == "nvme":
        yield f"{where}.attach", "a cdrom cannot be attached as nvme"
    if disk.blocksize not in {0, 512, 4096}:
        yield f"{where}.blocksize", f"{disk.blocksize} is not 512 or 4096"
    if disk.addr and not _PCI.fullmatch(disk.addr):
        yield f"{where}.addr", f"{disk.addr[:40]!r} is not a PCI address (slot or slot.function)"
    if disk.addr and disk.attach not in {"virtio", "nvme"}:
        yield f"{where}.addr", f"a disk attached as {disk.attach} has no PCI address"


def _check_nic(nic: Nic, where: str) -> Iterator[tuple[str, str]]:
    if not NAME.fullmatch(nic.id):
        yield f"{where}.id", f"{nic.id[:80]!r} is not a name (a-z, 0-9 and -)"
    if nic.mac and (not _MAC.fullmatch(nic.mac.lower()) or int(nic.mac[:2], 16) & 1):
        yield f"{where}.mac", f"{nic.mac[:40]!r} is not a unicast MAC address"
    if nic.addr and not _PCI.fullmatch(nic.addr):
        yield f"{where}.addr", f"{nic.addr[:40]!r} is not a PCI address (slot or slot.function)"
    if nic.romfile:
        yield from _check_path(nic.romfile, f"{where}.romfile", bare=False)
    for index, port in enumerate(nic.ports):
        for side, end in (("host", port.host), ("guest", port.guest)):
            yield from _check_end(end, f"{where}.ports[{index}].{side}")


def _check_end(end: Endpoint, where: str) -> Iterator[tuple[str, str]]:
    if not 1 <= end.port <= 65535:
        yield f"{where}.port", f"{end.port} is not between 1 and 65535"
    if end.address and not _is_ipv4(end.address):
        yield f"{where}.address", f"{end.address[:40]!r} is not an IPv4 address"


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _check_ports(config: Config) -> Iterator[tuple[str, str]]:
    seen: list[tuple[str, str, int]] = []
    for number, nic in enumerate(config.nics):
        for index, port in enumerate(nic.ports):
            address = port.host.address or "127.0.0.1"
            for protocol, other, taken in seen:
                overlap = address == other or "0.0.0.0" in {address, other}  # noqa: S104
                if (protocol, taken) == (port.protocol, port.host.port) and overlap:
                    where = f"config.nics[{number}].ports[{index}].host.port"
                    yield where, f"{port.protocol} port {taken} of the host is forwarded twice"
                    break
            seen.append((port.protocol, address, port.host.port))


def _check_fw_cfg(item: FwCfg, where: str) -> Iterator[tuple[str, str]]:
    if not _FW_CFG.fullmatch(item.name):
        yield f"{where}.name", f"{item.name[:80]!r} is not a name that starts with opt/"
    if bool(item.file) == bool(item.string):
        yield where, "needs either file or string"
    if item.file:
        yield from _check_path(item.file, f"{where}.file", bare=False)


def _check_smbios(smbios: Smbios) -> Iterator[tuple[str, str]]:
    for key in ("manufacturer", "product", "version", "serial", "sku"):
        text = getattr(smbios, key)
        if len(text) > 64 or not all(32 <= ord(char) < 127 for char in text):
            yield f"config.smbios.{key}", "is not printable ASCII of at most 64 characters"
    if smbios.uuid:
        try:
            good = str(uuid.UUID(smbios.uuid)) == smbios.uuid.lower()
        except ValueError:
            good = False
        if not good:
            yield "config.smbios.uuid", f"{smbios.uuid[:40]!r} is not a UUID"


def _unique(where: str, values: list[str]) -> Iterator[tuple[str, str]]:
    for index, value in enumerate(values):
        if value in values[:index]:
            yield where.format(index), f"{value[:80]!r} is used twice"
