"""The one QEMU command line of a machine: pure, nothing here touches the host.

A q35 machine with system management mode (without it the guest's kernel could write the Secure
Boot variables), UEFI in two flash banks, TPM by swtpm, virtio devices, no default devices. QMP and
the serial port are unix sockets; every QMP event also goes to a file, through a second monitor
whose input is a FIFO that holds nothing but the capability negotiation, so that after QEMU has
ended there is a record of why.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from machineos.host.virt.qemu import PROGRAM, SANDBOX, escape, node, option
from machineos.vm.provider import AS_DEFINED, StartOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from machineos.vm.model import Config, Disk, Machine, Nic, Port, Smbios
    from machineos.vm.paths import MachinePaths

_SERIAL_LIMIT = 20  # what virtio-blk and ATA have room for


def plan_qemu(
    machine: Machine,
    paths: MachinePaths,
    accelerator: str,
    options: StartOptions = AS_DEFINED,
) -> list[str]:
    """Return QEMU's argument list. ``accelerator`` is ``kvm`` or ``tcg``."""
    config = machine.config
    return [
        PROGRAM,
        *SANDBOX,
        "-name",
        f"guest={machine.name},debug-threads=on",
        "-nodefaults",
        "-no-user-config",
        *_processor(config, accelerator),
        *_firmware(config, paths, careless=machine.ephemeral),
        *_smbios(config.smbios),
        *_control(config, paths),
        *_tpm(config, paths),
        "-object",
        "rng-random,id=rng0,filename=/dev/urandom",
        "-device",
        "virtio-rng-pci,rng=rng0",
        *_disks(machine, paths),
        *_nics(config),
        *_fw_cfg(config),
        *_watchdogs(config),
        *_screen(config, paths),
        *_once(options),
    ]


def _processor(config: Config, accelerator: str) -> Iterator[str]:
    smm = "on" if config.secure_boot else "off"
    yield from ("-machine", f"q35,smm={smm},vmport=off")
    if accelerator == "kvm":
        yield from ("-accel", "kvm", "-cpu", "host")
    else:
        yield from ("-accel", "tcg,thread=multi", "-cpu", "max")
    yield from ("-smp", str(config.cpus), "-m", str(config.memory))
    yield from ("-rtc", "base=utc")
    yield from ("-global", "ICH9-LPC.disable_s3=1")  # S3 would reset the TPM's PCRs (CVE-2018-6622)


def _firmware(config: Config, paths: MachinePaths, *, careless: bool) -> Iterator[str]:
    code = node("uefi-code", paths.uefi_code, "raw", frozen=True, careless=False)
    nvram = node("uefi-nvram", paths.uefi_nvram, "qcow2", frozen=False, careless=careless)
    yield from option("blockdev", code)
    yield from option("blockdev", nvram)
    yield from ("-machine", "pflash0=uefi-code,pflash1=uefi-nvram")
    if config.secure_boot:
        yield from ("-global", "driver=cfi.pflash01,property=secure,value=on")


def _smbios(smbios: Smbios | None) -> Iterator[str]:
    if smbios is None:
        return
    keys = ("manufacturer", "product", "version", "serial", "sku", "uuid")
    pairs = [f"{key}={escape(getattr(smbios, key))}" for key in keys if getattr(smbios, key)]
    if pairs:
        yield from ("-smbios", ",".join(["type=1", *pairs]))


def _control(config: Config, paths: MachinePaths) -> Iterator[str]:
    yield from ("-pidfile", str(paths.qemu_pid))
    yield from ("-chardev", f"socket,id=qmp,path={_path(paths.qmp)},server=on,wait=off")
    yield from ("-mon", "chardev=qmp,mode=control")
    yield from ("-chardev", f"pipe,id=events,path={_path(paths.events)}")
    yield from ("-mon", "chardev=events,mode=control")
    if config.serial == "true":
        log = f"logfile={_path(paths.console_log)},logappend=off"
        socket = f"path={_path(paths.console)},server=on,wait=off"
        yield from ("-chardev", f"socket,id=console,{socket},{log}")
        yield from ("-serial", "chardev:console")


def _tpm(config: Config, paths: MachinePaths) -> Iterator[str]:
    if not config.tpm:
        return
    yield from ("-chardev", f"socket,id=tpm,path={_path(paths.tpm_control)}")
    yield from ("-tpmdev", "emulator,id=tpm0,chardev=tpm")
    yield from ("-device", "tpm-crb,tpmdev=tpm0")


def _disks(machine: Machine, paths: MachinePaths) -> Iterator[str]:
    config = machine.config
    *order, cdrom_order = _boot_order(config)
    yield from _controllers(config)
    ide = 0
    for index, (disk, place) in enumerate(zip(config.disks, order, strict=True)):
        name = f"disk{index}"
        device = _disk_device(disk, name)
        if disk.attach == "ide":
            device["bus"] = f"ide.{ide}"
            ide += 1
        file = paths.disk(disk.file)
        careless = machine.ephemeral
        yield from _drive(
            node(name, file, disk.kind, frozen=disk.frozen, careless=careless), device, place
        )
    if config.cdrom:
        cdrom = node("cdrom", Path(config.cdrom), "raw", frozen=True, careless=False)
        device = {"driver": "scsi-cd", "bus": "scsi.0", "drive": "cdrom", "id": "cdrom"}
        yield from _drive(cdrom, device, cdrom_order)


def _controllers(config: Config) -> Iterator[str]:
    scsi = any(disk.attach == "scsi" and disk.type != "cdrom" for disk in config.disks)
    if scsi or config.cdrom or any(_on_scsi_cd(disk) for disk in config.disks):
        yield from ("-device", "virtio-scsi-pci,id=scsi")
    if any(disk.attach == "megasas" for disk in config.disks):
        yield from ("-device", "megasas,id=raid")
    if any(disk.attach == "usb" for disk in config.disks) or config.gui:
        yield from ("-device", "qemu-xhci,id=usb")


def _drive(block: dict[str, object], device: dict[str, object], place: int | None) -> Iterator[str]:
    yield from option("blockdev", block)
    yield from option("device", device if place is None else {**device, "bootindex": place})


def _on_scsi_cd(disk: Disk) -> bool:
    return disk.type == "cdrom" and disk.attach in {"virtio", "scsi"}


def _disk_device(disk: Disk, name: str) -> dict[str, object]:
    device: dict[str, object] = {"drive": name, "id": f"dev-{name}", **_attachment(disk)}
    if disk.type != "cdrom":
        device["serial"] = Path(disk.file).stem[:_SERIAL_LIMIT] or name
    if disk.blocksize:
        device |= {"logical_block_size": disk.blocksize, "physical_block_size": disk.blocksize}
    if disk.addr:
        device["addr"] = disk.addr
    return device


def _attachment(disk: Disk) -> dict[str, object]:
    cd = disk.type == "cdrom"
    rotation = {} if cd else {"rotation_rate": 1 if disk.type == "ssd" else 7200}
    match disk.attach:
        case "virtio" | "scsi" if cd:
            return {"driver": "scsi-cd", "bus": "scsi.0"}
        case "virtio":
            return {"driver": "virtio-blk-pci"}
        case "scsi":
            return {"driver": "scsi-hd", "bus": "scsi.0", **rotation}
        case "nvme":
            return {"driver": "nvme"}
        case "ide":
            return {"driver": "ide-cd" if cd else "ide-hd", **rotation}
        case "usb":
            return {"driver": "usb-storage", "bus": "usb.0"}
        case "megasas":
            return {"driver": "scsi-cd" if cd else "scsi-hd", "bus": "raid.0", **rotation}


def _boot_order(config: Config) -> list[int | None]:
    """Return the boot index of each disk and, last, of the cdrom.

    What the definition says wins; the others follow in the order that ``boot`` asks for. With an
    empty ``boot`` they get none, and the firmware's own variables decide.
    """
    explicit = [*(disk.bootindex for disk in config.disks), None]
    result: list[int | None] = [index.value if index else None for index in explicit]
    if not config.boot:
        return result
    cds = [*(disk.type == "cdrom" for disk in config.disks), True]
    free = [index for index, given in enumerate(explicit) if given is None]
    free.sort(key=lambda index: cds[index] != (config.boot == "cdrom"))
    taken = set(result)
    following = (value for value in range(100 + len(free)) if value not in taken)
    for index in free:
        result[index] = next(following)
    return result


def _nics(config: Config) -> Iterator[str]:
    for index, nic in enumerate(config.nics):
        forwards = "".join(f",{_forward(port)}" for port in nic.ports)
        yield from ("-netdev", f"user,id=net{index}{forwards}")
        yield from option("device", _nic_device(nic, f"net{index}"))


def _nic_device(nic: Nic, netdev: str) -> dict[str, object]:
    driver = "virtio-net-pci" if nic.device == "virtio-net" else nic.device
    device: dict[str, object] = {"driver": driver, "netdev": netdev, "id": f"nic-{nic.id}"}
    device["romfile"] = nic.romfile
    if nic.mac:
        device["mac"] = nic.mac.lower()
    if nic.addr:
        device["addr"] = nic.addr
    if nic.bootindex.value is not None:
        device["bootindex"] = nic.bootindex.value
    return device


def _forward(port: Port) -> str:
    host = port.host.address or "127.0.0.1"
    return f"hostfwd={port.protocol}:{host}:{port.host.port}-{port.guest.address}:{port.guest.port}"


def _fw_cfg(config: Config) -> Iterator[str]:
    for item in config.fw_cfg:
        value = f"file={escape(item.file)}" if item.file else f"string={escape(item.string)}"
        yield from ("-fw_cfg", f"name={escape(item.name)},{value}")


def _watchdogs(config: Config) -> Iterator[str]:
    """Each resets the machine when nobody feeds it; that of the chipset is there, but mute."""
    if "itco" in config.watchdogs:
        yield from ("-global", "ICH9-LPC.noreboot=false")
    if "i6300esb" in config.watchdogs:
        yield from ("-device", "i6300esb")
    if config.watchdogs:
        yield from ("-action", "watchdog=reset")


def _screen(config: Config, paths: MachinePaths) -> Iterator[str]:
    yield from ("-display", "none")
    if config.gui:
        yield from ("-vnc", f"unix:{_path(paths.vnc)}")
        for device in ("VGA", "usb-kbd,bus=usb.0", "usb-tablet,bus=usb.0"):
            yield from ("-device", device)


def _once(options: StartOptions) -> Iterator[str]:
    if options.paused:
        yield "-S"
    if options.snapshot:
        yield from ("-loadvm", options.snapshot)
    if options.no_reboot:
        yield from ("-action", "reboot=shutdown")


def _path(path: Path) -> str:
    return escape(str(path))
