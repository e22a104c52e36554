"""From the key to the store: disks of strangers, headers, documents."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from fakes.boot import FakeFirst, FakeHost, FakeMachine, HandedOverError, RestartedError
from fakes.bootparts.disks import NULL, Disk, Volume, luks, luks_area
from fakes.bootparts.files import Tree
from machineos.boot.main import start
from machineos.core.secret import Secret
from machineos.document.between.handover import parse_handover
from machineos.document.state import system
from machineos.state.volumes.header import RECORD_OFFSET, header_record
from unit.boot.ends import handed_over, refusal
from unit.boot.worlds import (
    KEY,
    PARTIAL,
    Content,
    config_of,
    content,
    foreign_content,
    machine,
    publish_content,
    system_disk,
    two_documents,
)
from vectors.certificates import OTHER_PRODUCT, key, publisher

RUN = Path("/run/machineos")
STRANGE = "its LUKS header was not written by this machine"
NO_CONFIG = "no configuration volume of this machine: "


# -- configuration


def test_nothing_is_installed() -> None:
    made = machine(disks=[])
    text = "no disk has a partition machine-config: nothing is installed here"
    assert refusal(made) == text
    other = Disk("vda", [("vda1", "machine-store", Volume("ext4", Tree()))])
    assert refusal(machine(disks=[other])) == text


def test_a_header_that_was_changed_is_refused_unread() -> None:
    for place in (0, 5, 4096, RECORD_OFFSET - 1):
        made = machine()
        bad = bytearray(config_of(made).area)
        bad[place] ^= 1
        config_of(made).area = bytes(bad)
        assert refusal(made) == f"{NO_CONFIG}/dev/vda2: {STRANGE}"
        assert "open_luks" not in [name for name, _ in made.boot().host.calls]


@pytest.mark.parametrize("length", [0, 55])
def test_a_record_that_is_cut_off(length: int) -> None:
    made = machine()
    config_of(made).record = config_of(made).record[:length]
    assert refusal(made) == f"{NO_CONFIG}/dev/vda2: {STRANGE}"


def test_a_null_cipher_with_a_passphrase_that_opens() -> None:
    """The header is the attacker's: cryptsetup would open it, and everything on it be plain."""
    made = machine()
    evil = luks_area("any volume", KEY, cipher=NULL)
    config_of(made).area = evil
    assert refusal(made) == f"{NO_CONFIG}/dev/vda2: {STRANGE}"


def test_the_verified_copy_is_what_cryptsetup_is_given() -> None:
    """The disk shows another header once ours was read: it is not looked at again."""
    made = machine()
    evil = luks_area("any volume", KEY, cipher=NULL)
    config_of(made).later = evil + header_record(Secret(bytes(32)), evil)
    host = handed_over(made).host
    (opening,) = [arguments for name, arguments in host.calls if name == "open_luks"]
    assert opening[:3] == (Path("/dev/vda2"), "machine-config", RUN / "luks-header")
    copy = host.names.entry(Path("/sysroot/run/machineos/luks-header"))
    assert copy is not None
    assert (copy.data[:8], copy.mode) == (b"LUKS\xba\xbe\0\x02", 0o600)
    assert NULL.encode() not in copy.data


def test_a_header_of_ours_over_a_strangers_data() -> None:
    """A copy of our header on another disk authenticates, and then opens nothing."""
    made = machine()
    strange = luks("other", bytes(32), Volume("ext4", Tree()))
    strange.area, strange.record = config_of(made).area, config_of(made).record
    made.disks[0].parts[1] = ("vda2", "machine-config", strange)
    expected = "/dev/vda2: does not open with this machine's key: Integrity check failed."
    assert refusal(made) == NO_CONFIG + expected


def test_every_candidate_is_named_with_its_reason() -> None:
    disks = [
        system_disk("vda", secret=bytes(32)),
        Disk("vdb", [("vdb1", "machine-config", Volume("ext4", Tree()))]),
        system_disk("vdc", broken=True),
    ]
    assert refusal(machine(disks=disks)) == (
        f"{NO_CONFIG}/dev/vda2: {STRANGE}; /dev/vdb1: {STRANGE}; /dev/vdc2: Input/output error"
    )


def test_ours_is_reached_behind_others() -> None:
    disks = [
        system_disk("vda", secret=bytes(32)),
        system_disk("vdb", broken=True),
        system_disk("vdc"),
        system_disk("vdd"),
    ]
    host = handed_over(machine(disks=disks)).host
    sources = {str(one.target): one.source for one in host.names.mounts if one.kind == "ext4"}
    assert sources["/sysroot/atomfs-store"] == "/dev/vdc3"
    opened = [arguments[0] for name, arguments in host.calls if name == "open_luks"]
    assert opened == [Path("/dev/vdc2")]


@pytest.mark.parametrize("at", [1.0, 1.04, 5.0, 20.9, 21.0])
def test_a_disk_that_comes_late(at: float) -> None:
    """The clock of the fake stands at 1 s, and the disk may take twenty."""
    outcome = handed_over(machine(disks=[system_disk(at=at, driver="")]))
    assert at <= outcome.host.timer <= at + 0.15


def test_a_disk_that_comes_too_late() -> None:
    made = machine(disks=[system_disk(at=21.2)])
    outcome = made.boot()
    assert outcome.reason.startswith("no disk has a partition machine-config")
    waited = [arguments for name, arguments in outcome.host.calls if name == "sleep"]
    assert set(waited) == {(0.05,)}
    assert 400 <= len(waited) <= 402


class Coarse(FakeHost):
    """Each pause takes ten seconds here."""

    def sleep(self, seconds: float) -> None:
        super().sleep(200 * seconds)


@pytest.mark.parametrize(("at", "found"), [(21.0, True), (31.0, True), (41.0, False)])
def test_the_deadline_itself_is_not_too_late(at: float, found: bool) -> None:
    """After just twenty seconds it is waited once more, and looked once more after that."""
    running = machine(disks=[system_disk(at=at, driver="", alias="")]).power_on()
    running.__class__ = Coarse
    with pytest.raises((HandedOverError, RestartedError)) as end:
        start(FakeFirst(running))
    assert (end.type is HandedOverError) == found


def test_a_stranger_comes_first_and_ours_late() -> None:
    disks = [system_disk("vda", secret=bytes(32)), system_disk("vdb", at=3.0)]
    host = handed_over(machine(disks=disks)).host
    headers = [arguments[0] for name, arguments in host.calls if name == "read_header"]
    assert headers[:3] == [Path("/dev/vda2"), Path("/dev/vda2"), Path("/dev/vdb2")], (
        "each once a set"
    )
    assert headers[3:] == [Path("/dev/vdb4"), Path("/dev/machine-data/zot")]


def test_a_disk_behind_another_driver_needs_no_waiting() -> None:
    usb = system_disk("sda", alias="usb:v1234", driver="usb.ko")
    other = Disk("vdb", alias="virtio:d2v9", driver="virtio_blk.ko")
    host = handed_over(machine(disks=[usb, other])).host
    assert "sleep" not in [name for name, _ in host.calls]
    assert {"xhci.ko", "usb.ko"} <= host.kernel.modules


def test_drivers_that_nothing_needs_are_not_loaded() -> None:
    host = handed_over(machine(disks=[system_disk(), Disk("sdb", alias="usb:v1")])).host
    assert host.kernel.modules == {"loop.ko", "dm-verity.ko", "virtio_blk.ko"}


# -- generation


def config_files(made: FakeMachine) -> Tree:
    return config_of(made).plain.tree


def names_of(what: Content) -> tuple[str, str, str]:
    return system.document_files(what.fetched.verified.sha256)


@pytest.mark.parametrize("number", range(4))
def test_a_file_of_the_configuration_is_missing(number: int) -> None:
    name = ("manifest.yaml", *names_of(content()))[number]
    made = machine()
    del config_files(made).entries[name]
    assert refusal(made) == f"/config/{name} does not exist"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "is not JSON"),
        (1, "digest is sha256:"),
        (2, "the signature has"),
        (3, "the publisher's certificate is not exactly one"),
    ],
)
def test_a_file_of_the_configuration_is_changed(number: int, words: str) -> None:
    name = ("manifest.yaml", *names_of(content()))[number]
    made = machine()
    config_files(made).entries[name].data += b"x"
    assert words in refusal(made)


@pytest.mark.parametrize(("number", "limit"), [(0, 1 << 20), (1, 1 << 20), (2, 65536), (3, 65536)])
def test_a_file_of_the_configuration_is_too_large(number: int, limit: int) -> None:
    name = ("manifest.yaml", *names_of(content()))[number]
    made = machine()
    config_files(made).entries[name].data = bytes(limit + 1)
    assert refusal(made) == f"/config/{name}: is larger than {limit} bytes"


def test_a_link_in_the_configuration() -> None:
    made = machine()
    config_files(made).put(names_of(content())[0], kind="link")
    assert refusal(made).endswith(".json: is a symbolic link")


def test_a_document_that_another_ca_vouches_for() -> None:
    document, signature, certificate = names_of(content())
    made = machine()
    files = config_files(made)
    stranger = publisher().but(key=key("stranger"), issuer_key=key("strangers ca"))
    files.entries[certificate].data = stranger.pem()
    files.entries[signature].data = key("stranger").sign(
        files.entries[document].data, padding.PKCS1v15(), hashes.SHA256()
    )
    assert "not issued by certificate 'CN=Manifest rootCA'" in refusal(made)


def test_a_document_for_another_product() -> None:
    made = machine(disks=[system_disk(what=foreign_content())])
    assert refusal(made) == (
        f"signed by the publisher of product {OTHER_PRODUCT}, "
        "not of 11111111-2222-4333-8444-555555555555"
    )


def test_two_documents_that_go_together() -> None:
    made = two_documents(publish_content(PARTIAL))
    outcome = handed_over(made)
    document = parse_handover(
        outcome.host.names.read(Path("/sysroot/run/machineos/boot.json"), 9999)
    )
    assert [(one.name, one.type) for one in document.services] == [
        ("zot", "container"), ("more", "fs-only"),
    ]  # fmt: skip


def test_two_documents_that_contradict_each_other() -> None:
    taken = PARTIAL.replace("fs-only", "container").replace(
        "type: none", "type: simple\n      ipv4: 10.0.3.99/24"
    )
    assert refusal(two_documents(publish_content(taken))).startswith("the manifests together: ")


# -- store


def test_a_disk_without_a_store() -> None:
    made = machine()
    del made.disks[0].parts[2]
    assert refusal(made) == "the disk that /dev/vda2 is on has no partition machine-store"


def test_the_store_of_another_disk_is_not_taken() -> None:
    """It comes first in the list, and has just what is wanted."""
    made = machine()
    del made.disks[0].parts[2]
    made.disks.insert(0, system_disk("aaa", secret=bytes(32)))
    assert refusal(made) == "the disk that /dev/vda2 is on has no partition machine-store"
    made = machine()
    made.disks.insert(0, system_disk("aaa", secret=bytes(32)))
    mounts = handed_over(made).host.names.mounts
    assert [one.source for one in mounts if one.kind == "ext4"] == [
        "/dev/mapper/machine-config", "/dev/vda3",
    ]  # fmt: skip


def test_a_store_that_is_no_file_system() -> None:
    made = machine()
    made.disks[0].parts[2] = ("vda3", "machine-store", Volume("btrfs", Tree()))
    assert refusal(made) == "mount ext4 /dev/vda3 at /atomfs-store: Invalid argument"
