"""machine.yaml: the document of seed 002 as printed, every fault with path and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machineos.errors import DocumentError
from machineos.vm.document import Base, decode_machine, encode_machine, machine_dict
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
    check,
    default_machine,
)

SEED = b"""\
type: kvm
config:
  name: vm1
  cpus: 2
  memory: 2048
  serial: "true"
  nics:
  - bootindex: 'off'
    device: virtio-net
    id: nic0
    network: user
    ports:
    - guest:
        address: ''
        port: 80
      host:
        address: ''
        port: 28080
      protocol: tcp
    romfile: ''
  disks:
  - file: /home/u/.local/state/machine/machines/vm1/vm1/vm1.qcow2
    size: 120000000000
    type: ssd
  boot: hdd
  cdrom: ""
  uefi-code: /home/u/keys/snakeoil/bootkit/ovmf/ovmf-code.fd
  uefi-vars: /home/u/keys/snakeoil/bootkit/ovmf-vars.fd
  tpm: true
  tpm-version: "2.0"
  secure-boot: true
  gui: true
description: A fresh VM booting trust LiveCD in SecureBoot mode with TPM
ephemeral: false
name: vm1
status: stopped
"""


def faults(text: str) -> list[tuple[str, int]]:
    with pytest.raises(DocumentError) as caught:
        decode_machine(text.encode(), name="machine.yaml")
    return [(fault.path, fault.line) for fault in caught.value.faults]


def test_seed_document_decodes_as_printed() -> None:
    machine = decode_machine(SEED, name="machine.yaml")
    assert machine.name == machine.config.name == "vm1"
    assert machine.status == ""
    assert machine.config.serial == "true"
    assert machine.config.disks[0].size == Size(120_000_000_000)
    assert machine.config.disks[0].kind == "qcow2"
    assert machine.config.nics[0].bootindex == BootIndex(None)
    assert machine.config.nics[0].ports == (Port(Endpoint(28080), Endpoint(80), "tcp"),)


def test_empty_nics_of_the_seed() -> None:
    machine = decode_machine(b"name: a\nconfig:\n  nics: []\n", name="x")
    assert machine.config.nics == ()


def test_encoded_seed_keeps_its_keys_in_order() -> None:
    text = encode_machine(decode_machine(SEED, name="x")).decode()
    keys = [line.split(":")[0] for line in text.splitlines() if not line.startswith(("  -", "   "))]
    wanted = [
        line.split(":")[0]
        for line in SEED.decode().splitlines()
        if not line.startswith(("  -", "   ", "status"))
    ]
    assert keys == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("name: Vm_1\n", [("name", 1)]),
        ("name: -a\n", [("name", 1)]),
        (f"name: {'a' * 64}\n", [("name", 1)]),
        ("name: a\nconfig:\n  name: b\n", [("config.name", 3)]),
        ("name: a\ntype: incus\n", [("type", 2)]),
        ("name: a\nowner: me\n", [("owner", 2)]),
        ("name: a\nname: b\n", [("name", 2)]),
        ("name: a\nstatus: happy\n", [("status", 2)]),
        ("name: a\nconfig:\n  cpus: 0\n  memory: 1\n", [("config.cpus", 3), ("config.memory", 4)]),
        ("name: a\nconfig:\n  serial: maybe\n", [("config.serial", 3)]),
        ("name: a\nconfig:\n  tpm-version: '1.2'\n", [("config.tpm-version", 3)]),
        ("name: a\nconfig:\n  uefi: false\n", [("config.uefi", 3)]),
        ("name: a\nconfig:\n  boot: cdrom\n", [("config.boot", 3)]),
        ("name: a\nconfig:\n  boot: floppy\n", [("config.boot", 3)]),
        ("name: a\nconfig:\n  cdrom: a.iso\n", [("config.cdrom", 3)]),
        ("name: a\nconfig:\n  cloud-init:\n    user-data: x\n", [("config.cloud-init", 3)]),
        (
            "name: a\nconfig:\n  disks:\n  - file: d\n    size: lots\n    attach: floppy\n",
            [("config.disks[0].size", 5), ("config.disks[0].attach", 6)],
        ),
        (
            "name: a\nconfig:\n  disks:\n  - file: d\n    size: 100\n  - file: d\n",
            [("config.disks[0].size", 5), ("config.disks[1].file", 6)],
        ),
        ("name: a\nconfig:\n  disks:\n  - file: ../d\n", [("config.disks[0].file", 4)]),
        ("name: a\nconfig:\n  disks:\n  - file: tpm\n", [("config.disks[0].file", 4)]),
        ("name: a\nconfig:\n  disks:\n  - file: .d\n", [("config.disks[0].file", 4)]),
        ("name: a\nconfig:\n  disks:\n  - size: 1G\n", [("config.disks[0].file", 4)]),
        (
            "name: a\nconfig:\n  disks:\n  - file: /d.iso\n    type: cdrom\n    size: 1G\n",
            [("config.disks[0].size", 6)],
        ),
        (
            "name: a\nconfig:\n  disks:\n  - file: d\n    bootindex: first\n",
            [("config.disks[0].bootindex", 5)],
        ),
        (
            "name: a\nconfig:\n  disks:\n  - file: d\n    addr: 3,x\n",
            [("config.disks[0].addr", 5)],
        ),
        (
            "name: a\nconfig:\n  nics:\n  - id: n\n  - id: n\n    mac: 01:00:00:00:00:00\n",
            [("config.nics[1].id", 5), ("config.nics[1].mac", 6)],
        ),
        (
            "name: a\nconfig:\n  fw-cfg:\n  - name: etc/x\n    string: a\n    file: /b\n",
            [("config.fw-cfg[0]", 4), ("config.fw-cfg[0].name", 4)],
        ),
        (
            "name: a\nconfig:\n  smbios:\n    uuid: 12\n    serial: \"a\\nb\"\n",
            [("config.smbios.uuid", 4), ("config.smbios.serial", 5)],
        ),
    ],
)  # fmt: skip
def test_every_fault_has_path_and_line(text: str, wanted: list[tuple[str, int]]) -> None:
    assert sorted(faults(text)) == sorted(wanted)


PORTS = """\
name: a
config:
  nics:
  - ports:
    - host: {port: 8080, address: %s}
      guest: {port: 80}
    - host: {port: 8080, address: %s}
      guest: {port: 81}
      protocol: %s
"""


@pytest.mark.parametrize(
    ("first", "second", "protocol", "clash"),
    [
        ("''", "''", "tcp", True),
        ("''", "127.0.0.1", "tcp", True),
        ("0.0.0.0", "127.0.0.1", "tcp", True),
        ("127.0.0.2", "127.0.0.1", "tcp", False),
        ("''", "''", "udp", False),
    ],
)
def test_duplicate_host_ports(first: str, second: str, protocol: str, clash: bool) -> None:
    text = PORTS % (first, second, protocol)
    if clash:
        assert faults(text) == [("config.nics[0].ports[1].host.port", 7)]
    else:
        decode_machine(text.encode(), name="x")


@pytest.mark.parametrize("port", ["0", "65536", "-1"])
def test_impossible_ports(port: str) -> None:
    text = PORTS.replace("port: 81", f"port: {port}") % ("''", "127.0.0.2", "tcp")
    assert faults(text) == [("config.nics[0].ports[1].guest.port", 8)]


def test_relative_paths_become_absolute_with_a_base_only() -> None:
    text = (
        b"name: a\nconfig:\n  cdrom: a.iso\n  uefi-vars: ~/v.fd\n"
        b"  disks:\n  - file: a.qcow2\n    size: 1G\n  - file: ./sub/../b.qcow2\n"
    )
    assert [path for path, _ in faults(text.decode())] == [
        "config.cdrom",
        "config.uefi-vars",
        "config.disks[1].file",
    ]
    config = decode_machine(text, name="x", base=Base(Path("/w"), Path("/home/u"))).config
    assert (config.cdrom, config.uefi_vars) == ("/w/a.iso", "/home/u/v.fd")
    assert [disk.file for disk in config.disks] == ["a.qcow2", "/w/b.qcow2"]


names = st.from_regex(r"[a-z0-9][a-z0-9-]{0,30}", fullmatch=True)
plain = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
numbers = st.integers(1, 65535)
disks = st.builds(
    Disk,
    file=st.from_regex(r"/[a-z0-9 ,:#'\"-]{1,20}", fullmatch=True),
    format=st.sampled_from(["", "qcow2", "raw"]),
    size=st.integers(0, 1 << 20).map(lambda n: Size(n * 512)),
    attach=st.sampled_from(["virtio", "scsi", "nvme", "ide", "usb", "megasas"]),
    type=st.sampled_from(["ssd", "hdd"]),
    bootindex=st.sampled_from([None, BootIndex(None), BootIndex(3)]),
    blocksize=st.sampled_from([0, 512, 4096]),
)
ports = st.builds(Port, st.builds(Endpoint, numbers), st.builds(Endpoint, numbers))
nics = st.builds(
    Nic,
    id=names,
    mac=st.sampled_from(["", "52:54:00:12:34:56"]),
    ports=st.lists(ports, max_size=3, unique_by=lambda port: port.host.port).map(tuple),
)
configs = st.builds(
    Config,
    name=st.just("m"),
    cpus=st.integers(1, 255),
    memory=st.integers(128, 1 << 20),
    disks=st.lists(disks, max_size=3, unique_by=lambda disk: disk.file).map(tuple),
    nics=st.lists(nics, max_size=1).map(tuple),
    boot=st.sampled_from(["hdd", ""]),
    tpm=st.booleans(),
    smbios=st.none() | st.builds(Smbios, serial=plain, product=plain),
    fw_cfg=st.just(()) | st.just((FwCfg(name="opt/x", string="1.10"),)),
)


@settings(max_examples=60, deadline=None)
@given(config=configs, description=plain)
def test_round_trip(config: Config, description: str) -> None:
    machine = Machine(name="m", description=description, config=config)
    assert not list(check(machine))
    assert decode_machine(encode_machine(machine), name="x") == machine


def test_default_machines_are_without_faults() -> None:
    for secure in (True, False):
        machine = default_machine("vm1", secure=secure)
        assert not list(check(machine))
        assert machine_dict(machine)["name"] == "vm1"
