"""machine.yaml's own rules: each in its words, and both sides of each bound."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from machineos.vm.model import (
    BootIndex,
    CloudInit,
    Config,
    Disk,
    Endpoint,
    FwCfg,
    Machine,
    Nic,
    Port,
    Size,
    Smbios,
    check,
    default_machine,
)

TIB = 1 << 40
MAC = "52:54:00:12:34:56"


def faults(**config: Any) -> list[tuple[str, str]]:  # noqa: ANN401 (any field)
    return list(check(Machine(name="a", config=Config(**{"name": "a", **config}))))


def of_disk(**disk: Any) -> list[tuple[str, str]]:  # noqa: ANN401 (any field)
    return faults(disks=(Disk(**{"file": "d", **disk}),))


def of_nic(**nic: Any) -> list[tuple[str, str]]:  # noqa: ANN401 (any field)
    return faults(nics=(Nic(**nic),))


def test_names() -> None:
    text = "is not a name (a-z, 0-9 and -, 63 at most, no - in front)"
    for name in ("", "-a", "A", "a" * 64, "a_b"):
        machine = Machine(name=name, config=Config(name=name))
        assert list(check(machine)) == [("name", f"{name!r} {text}")]
    for name in ("a", "0", "a" * 63, "a-b-"):
        assert not list(check(Machine(name=name, config=Config(name=name))))
    other = Machine(name="a", config=Config(name="b"))
    assert list(check(other)) == [("config.name", "is 'b', but the machine is 'a'")]


def test_a_status_is_one_that_we_print() -> None:
    words = ("initialized", "stopped", "starting", "running", "stopping", "failed")
    for word in ("", *words):
        assert not list(check(Machine(name="a", config=Config(name="a"), status=word)))
    odd = Machine(name="a", config=Config(name="a"), status="happy")
    assert list(check(odd)) == [("status", f"'happy' is not one of: {', '.join(words)}")]


@pytest.mark.parametrize(
    ("key", "good", "bad", "message"),
    [
        ("cpus", (1, 255), (0, 256), "{} is not between 1 and 255"),
        ("memory", (128, 4 << 20), (127, (4 << 20) + 1), "{} MiB is not between 128 and 4194304"),
        ("serial", ("true", "false", ""), ("on",), "{!r} is neither true nor false"),
        ("uefi", (True,), (False,), "only machines with UEFI firmware are supported"),
        ("cloud_init", (None,), (CloudInit(),), "is not supported"),
        ("boot", ("hdd", ""), ("cdrom",), "is cdrom, but there is no cdrom"),
        ("cdrom", ("", "/a.iso"), ("a.iso",), "{!r} is not an absolute path"),
        ("uefi_code", ("/c",), ("c", "./c"), "{!r} is not an absolute path"),
        ("uefi_vars", ("/v",), ("v",), "{!r} is not an absolute path"),
    ],
)
def test_hardware(key: str, good: tuple[Any, ...], bad: tuple[Any, ...], message: str) -> None:
    for value in good:
        assert faults(**{key: value}) == []
    for value in bad:
        where = f"config.{key.replace('_', '-')}"
        assert faults(**{key: value}) == [(where, message.format(value))]


def test_only_tpm_2_unless_there_is_none() -> None:
    assert faults(tpm_version="1.2") == [("config.tpm-version", "only TPM 2.0 is supported")]
    assert faults(tpm_version="1.2", tpm=False) == []


def test_a_cdrom_to_boot_from_is_a_disk_or_the_cdrom() -> None:
    assert faults(boot="cdrom", cdrom="/a.iso") == []
    assert faults(boot="cdrom", disks=(Disk(file="/a.iso", type="cdrom"),)) == []


@pytest.mark.parametrize("name", ["tpm", "sockets", "uefi-code.fd", "run.json", "-d", ".d"])
def test_names_of_our_own_files_are_no_disks(name: str) -> None:
    message = f"{name!r} cannot be used as the name of a disk"
    assert of_disk(file=name) == [("config.disks[0].file", message)]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../d"])
def test_a_disk_is_a_plain_name_or_an_absolute_path(name: str) -> None:
    message = f"{name!r} is not an absolute path or a plain name"
    assert of_disk(file=name) == [("config.disks[0].file", message)]
    assert of_disk(file="/a/b") == []


def test_control_characters_are_in_no_path() -> None:
    assert of_disk(file="a\x1f") == [("config.disks[0].file", "holds a control character")]
    assert faults(cdrom="/a\n") == [("config.cdrom", "holds a control character")]
    assert of_disk(file="a b") == []


@pytest.mark.parametrize("size", [0, 512, 64 * TIB])
def test_sizes_of_disks(size: int) -> None:
    assert of_disk(size=Size(size)) == []


@pytest.mark.parametrize("size", [1, 511, 513, 64 * TIB + 512])
def test_sizes_that_no_disk_has(size: int) -> None:
    message = f"{size} bytes is not a multiple of 512 up to 64 TiB"
    assert of_disk(size=Size(size)) == [("config.disks[0].size", message)]


def test_disks_that_are_of_no_use() -> None:
    useless = ("config.disks[0].size", "an empty disk that can only be read is of no use")
    assert of_disk(size=Size(512), read_only=True) == [useless]
    assert of_disk(size=Size(512), type="cdrom") == [useless]
    assert of_disk(type="cdrom", attach="nvme") == [
        ("config.disks[0].attach", "a cdrom cannot be attached as nvme")
    ]
    for blocksize in (0, 512, 4096):
        assert of_disk(blocksize=blocksize) == []
    assert of_disk(blocksize=1024) == [("config.disks[0].blocksize", "1024 is not 512 or 4096")]


def test_pci_addresses() -> None:
    for attach in ("virtio", "nvme"):
        for addr in ("3", "1f", "0x1f", "1f.7"):
            assert of_disk(addr=addr, attach=attach) == []
    odd = "'1f.8' is not a PCI address (slot or slot.function)"
    assert of_disk(addr="1f.8") == [("config.disks[0].addr", odd)]
    assert of_nic(addr="1f.8") == [("config.nics[0].addr", odd)]
    assert of_nic(addr="1f.7") == []
    for attach in ("scsi", "ide", "usb"):
        assert of_disk(addr="3", attach=attach) == [
            ("config.disks[0].addr", f"a disk attached as {attach} has no PCI address")
        ]


def test_interfaces() -> None:
    assert of_nic(mac=MAC.upper()) == []
    for mac in ("01:00:00:00:00:00", "52:54:00:12:34", "x"):
        message = f"{mac!r} is not a unicast MAC address"
        assert of_nic(mac=mac) == [("config.nics[0].mac", message)]
    assert of_nic(id="A") == [("config.nics[0].id", "'A' is not a name (a-z, 0-9 and -)")]
    assert of_nic(romfile="/r") == []
    romfile = ("config.nics[0].romfile", "'r' is not an absolute path")
    assert of_nic(romfile="r") == [romfile]


def of_port(port: Port) -> list[tuple[str, str]]:
    return of_nic(ports=(port,))


def test_ports() -> None:
    assert of_port(Port(Endpoint(1, "0.0.0.0"), Endpoint(65535, "10.0.2.15"))) == []
    base = "config.nics[0].ports[0]"
    assert of_port(Port(Endpoint(0), Endpoint(65536))) == [
        (f"{base}.host.port", "0 is not between 1 and 65535"),
        (f"{base}.guest.port", "65536 is not between 1 and 65535"),
    ]
    assert of_port(Port(Endpoint(1, "::1"), Endpoint(1, "localhost"))) == [
        (f"{base}.host.address", "'::1' is not an IPv4 address"),
        (f"{base}.guest.address", "'localhost' is not an IPv4 address"),
    ]


def test_a_host_port_is_forwarded_once_also_from_two_interfaces() -> None:
    def nic(name: str, address: str = "") -> Nic:
        return Nic(id=name, ports=(Port(Endpoint(80, address), Endpoint(1)),))

    twice = [("config.nics[1].ports[0].host.port", "tcp port 80 of the host is forwarded twice")]
    assert faults(nics=(nic("x"), nic("y"))) == twice
    assert faults(nics=(nic("x", "127.0.0.1"), nic("y"))) == twice
    assert faults(nics=(nic("x"), nic("y", "0.0.0.0"))) == twice
    assert faults(nics=(nic("x"), nic("y", "127.0.0.2"))) == []


def test_firmware_items() -> None:
    assert faults(fw_cfg=(FwCfg("opt/a", string="x"), FwCfg("opt/b", file="/f"))) == []
    assert faults(fw_cfg=(FwCfg("etc/a", string="x"),)) == [
        ("config.fw-cfg[0].name", "'etc/a' is not a name that starts with opt/")
    ]
    for item in (FwCfg("opt/a"), FwCfg("opt/a", "/f", "x")):
        assert faults(fw_cfg=(item,)) == [("config.fw-cfg[0]", "needs either file or string")]
    assert faults(fw_cfg=(FwCfg("opt/a", file="f"),)) == [
        ("config.fw-cfg[0].file", "'f' is not an absolute path")
    ]


@pytest.mark.parametrize("key", ["manufacturer", "product", "version", "serial", "sku"])
def test_what_the_firmware_tells_the_guest(key: str) -> None:
    message = "is not printable ASCII of at most 64 characters"
    for text in ("x" * 64, " ~"):
        assert faults(smbios=Smbios(**{key: text})) == []
    for text in ("x" * 65, "\x1f", "\x7f", "ü"):
        assert faults(smbios=Smbios(**{key: text})) == [(f"config.smbios.{key}", message)]


def test_an_smbios_uuid_is_written_as_one() -> None:
    good = "6c8a6a0e-2f0c-4c57-9f5e-0f5f3e0c8a11"
    assert faults(smbios=Smbios(uuid=good)) == []
    assert faults(smbios=Smbios(uuid=good.upper())) == []
    for text in (good.replace("-", ""), "12"):
        assert faults(smbios=Smbios(uuid=text)) == [
            ("config.smbios.uuid", f"{text!r} is not a UUID")
        ]


def test_names_are_used_once() -> None:
    assert faults(disks=(Disk(file="d"), Disk(file="e"), Disk(file="d"))) == [
        ("config.disks[2].file", "'d' is used twice")
    ]
    assert faults(nics=(Nic(), Nic())) == [("config.nics[1].id", "'nic0' is used twice")]
    items = (FwCfg("opt/a", string="x"), FwCfg("opt/a", string="y"))
    assert faults(fw_cfg=items) == [("config.fw-cfg[1].name", "'opt/a' is used twice")]


def test_boot_indexes() -> None:
    assert BootIndex.parse("off") == BootIndex.parse("") == BootIndex(None)
    assert (BootIndex.parse("0"), BootIndex.parse("99")) == (BootIndex(0), BootIndex(99))
    for text in ("100", "-1", "first", "٣"):
        with pytest.raises(ValueError, match="is neither a number from 0 to 99 nor off"):
            BootIndex.parse(text)


def test_formats_and_what_can_be_written() -> None:
    assert Disk(file="d").kind == "qcow2"
    assert Disk(file="d", type="cdrom").kind == "raw"
    assert Disk(file="d", format="raw").kind == "raw"
    assert Disk(file="d", format="qcow2", type="cdrom").kind == "qcow2"
    assert not Disk(file="d").frozen
    assert Disk(file="d", read_only=True).frozen
    assert Disk(file="d", type="cdrom").frozen


def test_the_machine_that_one_gets_without_a_file() -> None:
    secure = default_machine("vm1", secure=True)
    assert secure == Machine(
        name="vm1",
        config=Config(
            name="vm1",
            nics=(Nic(),),
            disks=(Disk(file="vm1.qcow2", size=Size(50 << 30)),),
            boot="hdd",
            secure_boot=True,
        ),
    )
    assert not default_machine("vm1", secure=False).config.secure_boot
    assert (secure.config.cpus, secure.config.memory, secure.config.tpm) == (2, 2048, True)


def test_what_a_person_wrote_is_shown_in_part() -> None:
    long = "x" * 200
    (name, _) = list(check(Machine(name="A" * 200, config=Config(name="b"))))
    assert name[1].startswith(f"{'A' * 80!r} is not")
    both = list(check(Machine(name="a" * 63, config=Config(name=long))))
    assert both == [("config.name", f"is {'x' * 80!r}, but the machine is {'a' * 63!r}")]
    (status,) = check(Machine(name="a", config=Config(name="a"), status=long))
    assert status[1].startswith(f"{'x' * 40!r} is not one of")
    (serial,) = faults(serial=long)
    assert serial[1] == f"{'x' * 40!r} is neither true nor false"
    (cdrom,) = faults(cdrom=long)
    assert cdrom[1] == f"{'x' * 80!r} is not an absolute path"
    (own,) = of_disk(file="." + long)
    assert own[1] == f"{'.' + 'x' * 79!r} cannot be used as the name of a disk"


def test_defaults_are_those_of_the_seed() -> None:
    assert Machine().type == "kvm"
    assert Config() == Config(
        cpus=2, memory=2048, serial="true", boot="", uefi=True, tpm=True, tpm_version="2.0",
        secure_boot=True, gui=False,
    )  # fmt: skip
    assert Disk(file="d") == Disk(file="d", attach="virtio", type="ssd", format="", blocksize=0)
    assert Nic() == Nic(id="nic0", device="virtio-net", network="user")
    assert Port(Endpoint(1), Endpoint(2)).protocol == "tcp"


@pytest.mark.parametrize(
    "kind", [Endpoint, Port, Nic, Disk, Smbios, FwCfg, CloudInit, Config, Machine]
)
def test_no_part_takes_a_key_that_it_does_not_know(kind: type[msgspec.Struct]) -> None:
    assert kind.__struct_config__.forbid_unknown_fields
    assert kind.__struct_config__.frozen
