"""Volumes of services at a boot: which are opened, and what root may have left in their place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fakes.boot import FakeHost, FakeMachine
from fakes.bootparts.disks import Disk
from fakes.bootparts.volumes import DERIVED, Storage, luks2_header, volume_header
from unit.boot.ends import handed_over, refusal
from unit.boot.worlds import machine, system_disk

OPEN = {"machine-volume-zot": Path("/dev/machine-data/zot")}


def with_storage(storage: Storage) -> FakeMachine:
    """A machine with this in the place of its volumes."""
    disk = system_disk()
    *parts, (name, label, _) = disk.parts
    return machine(disks=[replace(disk, parts=[*parts, (name, label, storage)])])


def told(host: FakeHost) -> list[str]:
    return [line for line in host.lines if line.startswith("storage ")]


def test_a_volume_that_the_generation_names_is_opened() -> None:
    host = handed_over(machine()).host
    assert host.storage.opened == OPEN
    assert told(host) == []


def test_no_other_is_looked_at() -> None:
    headers = {name: volume_header(name) for name in ("zot", "other", "zot.new")}
    host = handed_over(with_storage(Storage(headers=headers))).host
    assert host.storage.opened == OPEN
    read = [arguments for name, arguments in host.calls if name == "read_header"]
    assert read[-1] == (Path("/dev/machine-data/zot"),)
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
    "without a token": (
        luks2_header(
            {
                "keyslots": {"0": {"kdf": DERIVED}},
                "digests": {"0": DERIVED},
                "segments": {"0": {"type": "crypt", "encryption": "aes-xts-plain64"}},
                "tokens": {},
            }
        ),
        "its LUKS2 header is none of ours",
    ),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_what_does_not_open_stays_closed_and_ends_no_boot(kind: str) -> None:
    data, words = SPOILT[kind]
    host = handed_over(with_storage(Storage(headers={"zot": data}))).host
    assert host.storage.opened == {}
    (line,) = told(host)
    assert line.startswith("storage zot stays closed: ")
    assert words in line


def test_another_passphrase_in_the_token_than_in_the_key_slot() -> None:
    good = volume_header("zot")
    other = volume_header("zot", passphrase=b"q" * 64)
    mixed = good.replace(_opens(good), _opens(other))
    storage = Storage(headers={"zot": _summed(mixed)})
    host = handed_over(with_storage(storage)).host
    assert host.storage.opened == {}
    assert "does not open with this machine's key" in told(host)[0]
    # Two keys of the TPM's, that of the blocks, the passphrase, and the machine's own.
    assert host.forgotten == 5


def _opens(header: bytes) -> bytes:
    start = header.index(b'"opens": "') + 10
    return header[start : start + 64]


def _summed(header: bytes) -> bytes:
    import json

    return luks2_header(json.loads(header[4096 : 16 << 10].partition(b"\0")[0]))


def test_a_volume_that_cannot_be_read() -> None:
    storage = Storage(headers={"zot": volume_header("zot")}, broken=frozenset({"zot"}))
    host = handed_over(with_storage(storage)).host
    assert told(host) == ["storage zot stays closed: /dev/machine-data/zot: Input/output error"]


def test_blocks_of_another_key_have_no_volumes() -> None:
    """dm-integrity opens with any key and gives out nothing with the wrong one."""
    storage = Storage(key=bytes(32), headers={"zot": volume_header("zot")})
    host = handed_over(with_storage(storage)).host
    assert host.storage.opened == {}


def test_a_disk_without_the_partition() -> None:
    disk: Disk = system_disk()
    made = machine(disks=[replace(disk, parts=disk.parts[:-1])])
    assert refusal(made) == "disk vda has no partition machine-data"


def test_the_keys_are_gone_before_a_document_is_parsed() -> None:
    host = handed_over(machine()).host
    names = [name for name, _ in host.calls]
    first = next(
        number
        for number, (name, arguments) in enumerate(host.calls)
        if name == "read_file" and arguments[0] == Path("/config/manifest.yaml")
    )
    assert names[:first].count("forget_secret") == 3
    assert names.index("open_integrity") < first < names.index("open_volume")
