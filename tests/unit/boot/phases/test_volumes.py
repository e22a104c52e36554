"""Volumes of services at a boot: which are opened, and what root may have left in their place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fakes.boot import FakeHost, FakeMachine
from fakes.bootparts.disks import Disk, Volume
from fakes.bootparts.files import Tree
from fakes.bootparts.volumes import Storage, luks2_header, volume_header
from machineos.core.secret import Secret
from machineos.state.volumes.sealed import HEADERS_SIZE
from unit.boot.ends import handed_over, refusal
from unit.boot.worlds import machine, system_disk

OPEN = {"machine-volume-zot": Path("/dev/machine-data/zot")}


def with_storage(storage: Storage | Volume) -> FakeMachine:
    """A machine with this in the place of its volumes."""
    disk = system_disk()
    *parts, (name, label, _) = disk.parts
    return machine(disks=[replace(disk, parts=[*parts, (name, label, storage)])])


def told(host: FakeHost) -> list[str]:
    return [line for line in host.lines if line.startswith("storage")]


def test_a_volume_that_the_generation_names_is_opened() -> None:
    host = handed_over(machine()).host
    assert host.storage.opened == OPEN
    assert told(host) == []


def test_no_other_is_looked_at() -> None:
    headers = {name: volume_header(name) for name in ("zot", "other", "zot.new")}
    host = handed_over(with_storage(Storage(headers=headers))).host
    assert host.storage.opened == OPEN
    read = [arguments for name, arguments in host.calls if name == "read_header"]
    assert read[-1] == (Path("/dev/machine-data/zot"), HEADERS_SIZE)
    assert len(read) == 2


def test_one_that_was_cut_off_before_it_got_its_name_is_opened_by_the_one_it_has() -> None:
    host = handed_over(with_storage(Storage(headers={"zot+new": volume_header("zot")}))).host
    assert host.storage.opened == {"machine-volume-zot+new": Path("/dev/machine-data/zot+new")}
    host = handed_over(with_storage(Storage(headers={"zot+new": bytes(1 << 16)}))).host
    assert host.storage.opened == {}


def test_one_that_was_not_made_yet_is_no_matter() -> None:
    host = handed_over(with_storage(Storage())).host
    assert host.storage.opened == {}
    assert told(host) == []


SPOILT: dict[str, tuple[bytes, str]] = {
    "nothing": (bytes(1 << 16), "it has no LUKS2 header"),
    "short": (b"LUKS", "it has no LUKS2 header"),
    "of another volume": (volume_header("other"), "it is not sealed to this machine, or was"),
    "of another machine": (volume_header("zot", key=bytes(32)), "it is not sealed to this machine"),
    "without a token": (luks2_header({"tokens": {}}), "its LUKS2 header is none of ours"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_what_does_not_open_stays_closed_and_ends_no_boot(kind: str) -> None:
    data, words = SPOILT[kind]
    host = handed_over(with_storage(Storage(headers={"zot": data}))).host
    assert host.storage.opened == {}
    (line,) = told(host)
    assert line.startswith("storage zot stays closed: ")
    assert words in line


def test_a_device_of_that_name_is_there() -> None:
    storage = Storage(headers={"zot": volume_header("zot")}, taken=frozenset({"zot"}))
    host = handed_over(with_storage(storage)).host
    assert host.storage.opened == {}
    told_of = "a device machine-volume-zot exists already"
    assert told(host) == [f"storage zot stays closed: {told_of}"]
    # Two keys of the TPM's, that of the volume, and the machine's own.
    assert host.forgotten == 4


def test_a_volume_that_cannot_be_read() -> None:
    storage = Storage(headers={"zot": volume_header("zot")}, broken=frozenset({"zot"}))
    host = handed_over(with_storage(storage)).host
    assert told(host) == ["storage zot stays closed: /dev/machine-data/zot: Input/output error"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (Storage(key=bytes(32), headers={"zot": volume_header("zot")}), "lvm: no such group"),
        (Volume("ext4", Tree()), "integritysetup: no superblock"),
    ],
)
def test_what_lies_below_the_volumes_does_not_open(content: Storage | Volume, words: str) -> None:
    """dm-integrity opens with any key and gives out nothing with the wrong one. A machine whose
    volumes are lost boots, and says so."""
    host = handed_over(with_storage(content)).host
    assert host.storage.opened == {}
    assert told(host) == [f"storage: no volume can be opened: {words}"]


def test_a_disk_without_the_partition() -> None:
    disk: Disk = system_disk()
    made = machine(disks=[replace(disk, parts=disk.parts[:-1])])
    assert refusal(made) == "the disk that /dev/vda2 is on has no partition machine-data"


def test_the_keys_are_gone_before_a_document_is_parsed() -> None:
    host = handed_over(machine()).host
    names = [name for name, _ in host.calls]
    first = next(
        number
        for number, (name, arguments) in enumerate(host.calls)
        if name == "read_file" and arguments[0] == Path("/config/manifest.yaml")
    )
    assert names[:first].count("forget_secret") == 2
    begun = names.index("begin_volumes")
    assert begun < first < names.index("open_volume")
    key = host.calls[begun][1][2]
    assert isinstance(key, Secret)
    assert key.wiped
