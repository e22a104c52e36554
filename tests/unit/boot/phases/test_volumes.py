"""Volumes of services at a boot: which are opened, and what root may have left in their place."""

from __future__ import annotations

from pathlib import Path

import pytest

from changed import replace
from fakes.boot import FakeHost, FakeMachine
from fakes.bootparts.disks import Disk, Volume
from fakes.bootparts.files import Tree
from fakes.bootparts.volumes import SUPERBLOCK, Storage, luks2_header, volume_header
from machineos.boot.phases.storage import ADVICE
from machineos.core.secret import Secret
from machineos.host.disk.integrity import SUPERBLOCK_SIZE
from machineos.state.volumes.sealed import HEADERS_SIZE
from unit.boot.ends import handed_over
from unit.boot.worlds import machine, system_disk

OPEN = {"machine-volume-zot": Path("/dev/machine-data/zot")}


def with_storage(storage: Storage | Volume) -> FakeMachine:
    """A machine with this in the place of its volumes."""
    disk = system_disk()
    *parts, (name, label, _) = disk.parts
    return machine(disks=[replace(disk, parts=[*parts, (name, label, storage)])])


def told(host: FakeHost) -> list[str]:
    """Return what was said of volumes; what to do about it stands behind it, and only then."""
    found = [line for line in host.lines if line.startswith("storage")]
    assert host.lines.count(ADVICE) == bool(found)
    return found


def test_a_volume_that_the_generation_names_is_opened() -> None:
    host = handed_over(machine()).host
    assert host.storage.opened == OPEN
    assert told(host) == []


def test_no_other_is_looked_at() -> None:
    headers = {name: volume_header(name) for name in ("zot", "other", "zot.new")}
    host = handed_over(with_storage(Storage(headers=headers))).host
    assert host.storage.opened == OPEN
    read = [arguments for name, arguments in host.calls if name == "read_header"]
    assert read[1:] == [
        (Path("/dev/vda4"), SUPERBLOCK_SIZE), (Path("/dev/machine-data/zot"), HEADERS_SIZE)
    ]  # fmt: skip


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


def test_blocks_of_another_key_have_no_volumes() -> None:
    """dm-integrity opens with any key and gives out nothing with the wrong one. A machine whose
    volumes are lost boots, and says so."""
    storage = Storage(key=bytes(32), headers={"zot": volume_header("zot")})
    host = handed_over(with_storage(storage)).host
    assert host.storage.opened == {}
    assert told(host) == ["storage: not every volume is there: lvm: no such group"]


def test_one_volume_that_is_damaged_closes_no_other() -> None:
    storage = Storage(headers={"zot": volume_header("zot")}, damage="lvm: other: no such module")
    host = handed_over(with_storage(storage)).host
    assert host.storage.opened == OPEN
    assert told(host) == ["storage: not every volume is there: lvm: other: no such module"]


RECALCULATE = bytearray(SUPERBLOCK)
RECALCULATE[24] |= 0x04


@pytest.mark.parametrize(
    "content", [Volume("ext4", Tree()), Storage(superblock=bytes(RECALCULATE))]
)
def test_a_superblock_that_is_none_of_ours_is_never_opened(content: Storage | Volume) -> None:
    """It would have the kernel make the tags of all blocks anew, of whatever is there."""
    host = handed_over(with_storage(content)).host
    assert (host.storage.opened, host.storage.begun) == ({}, False)
    (line,) = told(host)
    assert line.startswith("storage: no volume can be opened: /dev/vda4: ")
    assert "superblock of dm-integrity" in line


def test_a_disk_without_the_partition() -> None:
    """Whoever can rename one must not end the boot of all that needs none."""
    disk: Disk = system_disk()
    host = handed_over(machine(disks=[replace(disk, parts=disk.parts[:-1])])).host
    words = "the disk that /dev/vda2 is on has no partition machine-data"
    assert told(host) == [f"storage: no volume can be opened: {words}"]


def test_a_disk_that_cannot_be_read() -> None:
    host = handed_over(with_storage(Storage(dead=True))).host
    assert told(host) == ["storage: no volume can be opened: /dev/vda4: Input/output error"]


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
