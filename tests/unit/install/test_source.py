"""What to install, on which disk, for whom, and waiting for the network: every branch."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from changed import replace
from fakes.machine import FakeHost, FakeMachine
from machineos.core.facts import Facts
from machineos.core.secret import Secret
from machineos.document.between.medium import (
    CA_CERTIFICATE,
    CA_KEY,
    CA_SIGNATURE,
    INDEX_FILE,
    INSTALL_KEY,
    LAYOUTS,
    MediumIndex,
)
from machineos.errors import (
    AuthError,
    BootError,
    ConflictError,
    DocumentError,
    MachineOSError,
    MissingError,
    SignatureError,
    StalledError,
    TransferError,
    UsageError,
)
from machineos.host.disk.usage import Mounted
from machineos.install import source
from machineos.install.source import (
    BLOCKS_KEY,
    BOOTED,
    DISK,
    HOST_CA,
    IDENTITY,
    KEY,
    LIMIT,
    MEDIUM,
    NETWORK_SECONDS,
    PARTS,
    PLACE,
    REACHABLE,
    RUN,
    SMALL_DISK,
    TRUST,
    WISH,
    HostCa,
    Identity,
    Wish,
    parse_medium,
    parse_request,
    shown,
)
from machineos.install.steps import ReadFile, ReadLabel, ReadSmallDisk, WriteTable
from machineos.oci.model.place import Place
from machineos.oci.model.reference import RegistryLocation
from unit.document.conftest import PRODUCT
from vectors.certificates import SUDI_CA_NAME, ca, device

from . import conftest
from .conftest import SMALL, VDA, Watched

CHECK, LOOK, IDENTIFY, REACH = PARTS
CA_NAMES = (CA_KEY, CA_CERTIFICATE, CA_SIGNATURE)
THERE = Place.parse_remote("registry.example/machine/install:1.0.0", plain_http=False)


def test_where_things_are() -> None:
    """The initrd and the units of the medium have these paths too."""
    assert Path("/run/machineos") == RUN
    assert (MEDIUM, TRUST, SMALL_DISK) == (RUN / "medium", RUN / "trust", RUN / "install-data")
    assert (source.URL_LABEL, source.URL_FILE, source.DISK_FILE) == (
        "inst-data", "url.txt", "disk.txt",
    )  # fmt: skip
    assert (LIMIT, NETWORK_SECONDS) == (65536, 90.0)


def test_url_txt() -> None:
    assert parse_request("registry.example/a:b\n") == Place(
        RegistryLocation(host="registry.example"), "a", "b"
    )
    assert parse_request("docker://registry.example/a:b plain-http\n") == Place(
        RegistryLocation(host="registry.example"), "a", "b", plain_http=True
    )


@pytest.mark.parametrize(
    "text", ["", "\n", "r.example/a:b insecure", "r.example/a:b plain-http x", "a b c"]
)
def test_what_is_no_url_txt(text: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_request(text)
    assert caught.value.name == "url.txt"
    assert caught.value.faults[0].line == 1
    assert caught.value.faults[0].message == "is not: URL [plain-http]"


@given(st.text(max_size=80))
def test_any_url_txt(text: str) -> None:
    try:
        assert parse_request(text).at.host
    except DocumentError as error:
        assert error.faults


def test_what_the_medium_holds() -> None:
    index = MediumIndex(version=1, live="machine/live:1", install="machine/install:1.0.0")
    assert parse_medium(index.to_bytes()) == Place(
        RegistryLocation(folder=Path("/run/machineos/medium/oci")), "machine/install", "1.0.0"
    )


def test_a_medium_that_holds_nothing() -> None:
    with pytest.raises(MissingError) as caught:
        parse_medium(MediumIndex(version=1, live="machine/live:1").to_bytes())
    assert caught.value.message == (
        "this medium holds no manifest, and no disk says where to install from"
    )
    assert caught.value.hint == (
        "attach a disk labelled inst-data with url.txt, or build a medium with a manifest"
    )
    for name in ("no-tag", "Machine/install:1", "a:.tag"):
        with pytest.raises(DocumentError):
            parse_medium(MediumIndex(version=1, live="a:1", install=name).to_bytes())


def test_places_for_people() -> None:
    assert shown(THERE) == "registry.example/machine/install:1.0.0"
    local = Place(RegistryLocation(folder=Path("/x")), "machine/install", "1.0.0")
    assert shown(local) == "the medium/machine/install:1.0.0"


def look(machine: FakeMachine, wish: Wish) -> tuple[Watched, Facts]:
    watched = Watched(machine.boot())
    return watched, watched.take([LOOK], Facts().plus(WISH, wish), BOOTED)


def test_a_place_that_was_named(machine: FakeMachine) -> None:
    watched, facts = look(machine, Wish(THERE))
    assert (facts[PLACE], facts[DISK]) == (THERE, VDA)
    assert watched.host.said == ["installing registry.example/machine/install:1.0.0 on disk vda"]
    assert not [step for step in watched.steps if isinstance(step, (ReadLabel, ReadFile))]


def test_the_medium_when_no_disk_says_more(machine: FakeMachine) -> None:
    watched, facts = look(machine, Wish(None))
    assert facts[PLACE].at.folder == MEDIUM / LAYOUTS
    assert watched.host.said == ["installing the medium/machine/install:1.0.0 on disk vda"]
    assert ReadFile(MEDIUM / INDEX_FILE, 65536) in watched.steps


def test_no_medium_started_this_machine(machine: FakeMachine) -> None:
    """A developer's own, say: refused before anything else is looked at."""
    del machine.files[MEDIUM / INDEX_FILE]
    watched = Watched(machine.boot())
    with pytest.raises(BootError, match="was not booted from an install medium") as caught:
        watched.take(PARTS, Facts().plus(WISH, Wish(THERE)))
    assert "install.iso" in caught.value.hint
    assert watched.steps == [ReadFile(MEDIUM / INDEX_FILE, LIMIT)]


def test_a_disk_in_use_is_not_installed_on(machine: FakeMachine) -> None:
    """The only one there is, and the one that is named."""
    machine.used = (Mounted("vda2", "/dev/mapper/root", Path("/")),)
    watched = Watched(machine.boot())
    with pytest.raises(MissingError, match=r"in use: vda2 is mounted at /\)"):
        watched.take([CHECK, LOOK], Facts().plus(WISH, Wish(None)))
    with pytest.raises(ConflictError, match=r"^disk vda is in use: vda2 is mounted at /$"):
        watched.take([CHECK, LOOK], Facts().plus(WISH, Wish(None, "vda")))
    assert not [step for step in watched.steps if isinstance(step, WriteTable)]


def with_small_disk(machine: FakeMachine, **files: str) -> FakeMachine:
    machine.disks = (VDA, SMALL)
    machine.small_disks["vdb"] = {name.replace("_", "."): text for name, text in files.items()}
    return machine


def test_the_small_disk_before_the_medium(machine: FakeMachine) -> None:
    with_small_disk(machine, url_txt="r.example/a:b plain-http\n")
    watched, facts = look(machine, Wish(None))
    assert facts[PLACE] == Place.parse_remote("r.example/a:b", plain_http=True)
    assert facts[DISK] == VDA
    step = ReadSmallDisk(Path("/dev/vdb"), SMALL_DISK, ("url.txt", "disk.txt"), 65536)
    assert step in watched.steps


def test_the_small_disk_names_the_disk(machine: FakeMachine) -> None:
    with_small_disk(machine, url_txt="r.example/a:b", disk_txt="vdc\n")
    other = replace(VDA, name="vdc")
    machine.disks = (VDA, SMALL, other)
    assert look(machine, Wish(None))[1][DISK] == other
    assert look(machine, Wish(None, "vda"))[1][DISK] == VDA  # a person at the console is right
    assert look(machine, Wish(None, "/dev/vda"))[1][DISK] == VDA


def test_a_small_disk_without_url_txt(machine: FakeMachine) -> None:
    with_small_disk(machine, disk_txt="vda")
    with pytest.raises(MissingError) as caught:
        look(machine, Wish(None))
    assert caught.value.message == "the disk vdb, inst-data, has no url.txt"


def test_a_small_disk_with_nonsense(machine: FakeMachine) -> None:
    with_small_disk(machine, url_txt="three words here")
    with pytest.raises(DocumentError, match=r"url\.txt"):
        look(machine, Wish(None))
    with_small_disk(machine, url_txt="r.example/a:b", disk_txt="x" * 65537)
    with pytest.raises(DocumentError, match="larger than 65536 bytes"):
        look(machine, Wish(None))


def test_only_the_label_counts(machine: FakeMachine) -> None:
    """A disk with an EFI partition, say, is not asked."""
    machine.disks = (replace(VDA, name="vdz"), VDA)
    watched = Watched(machine.boot())
    with pytest.raises(UsageError, match="several disks"):
        watched.take([LOOK], Facts().plus(WISH, Wish(None)), BOOTED)
    assert [s.device.name for s in watched.steps if isinstance(s, ReadLabel)] == ["vdz", "vda"]


def test_the_disk_is_chosen_before_anything_else(machine: FakeMachine) -> None:
    with pytest.raises(MissingError, match="no disk 'none'"):
        look(machine, Wish(THERE, "none"))


def identify(machine: FakeMachine) -> Facts:
    return Watched(machine.boot()).take([IDENTIFY], Facts(), BOOTED)


def test_who_this_is(machine: FakeMachine) -> None:
    facts = identify(machine)
    ca_pem = machine.files[TRUST / "manifest-ca.pem"]
    assert facts[IDENTITY] == Identity(PRODUCT, ca_pem)
    assert facts[KEY] == conftest.KEY
    ours = conftest.host_ca()
    assert facts[HOST_CA] == HostCa(*(ours[name] for name in CA_NAMES))


@pytest.mark.parametrize("name", CA_NAMES)
def test_no_ca_was_left(machine: FakeMachine, name: str) -> None:
    del machine.keys[name]
    with pytest.raises(MissingError, match=f"holds no key {name}"):
        identify(machine)


def test_the_ca_of_another_machine(machine: FakeMachine) -> None:
    """The disk is untouched then."""
    machine.keys.update(conftest.host_ca("another device"))
    with pytest.raises(SignatureError, match="was not signed by this device identity"):
        identify(machine)


@pytest.mark.parametrize("name", ["device.pem", "sudi-ca.pem", "manifest-ca.pem"])
def test_what_the_initrd_did_not_leave(machine: FakeMachine, name: str) -> None:
    del machine.files[TRUST / name]
    with pytest.raises(MissingError, match=name):
        identify(machine)


def test_no_key_was_left(machine: FakeMachine) -> None:
    machine.keys.clear()
    with pytest.raises(MissingError, match="holds no key machineos:configuration-key"):
        identify(machine)
    assert INSTALL_KEY == "machineos:configuration-key"


def test_a_device_of_another_ca(machine: FakeMachine) -> None:
    machine.files[TRUST / "sudi-ca.pem"] = ca(SUDI_CA_NAME, "impostor").pem()
    with pytest.raises(SignatureError):
        identify(machine)


def test_an_expired_device_is_itself_all_the_same(machine: FakeMachine) -> None:
    """No clock can be trusted here (ADR 0008)."""
    good = device().but(serial_number=f"PID:{PRODUCT} SN:SN0001")
    old = good.but(start=good.start.replace(year=2001), end=good.start.replace(year=2002))
    pem = old.pem()
    machine.files[TRUST / "device.pem"] = pem
    machine.keys.update(conftest.host_ca_of(pem))
    assert identify(machine)[IDENTITY].product == PRODUCT


class Line(FakeHost):
    """A network on which asking fails in these ways, one after the other, or for ever."""

    def __init__(self, machine: FakeMachine, *ways: MachineOSError, forever: bool = False) -> None:
        super().__init__(machine)
        self.ways = list(ways)
        self.forever = forever
        self.asked = 0

    def resolve(self, place: Place) -> None:
        self.asked += 1
        if self.ways:
            raise self.ways[0] if self.forever else self.ways.pop(0)


def reach(host: FakeHost, place: Place = THERE) -> None:
    Watched(host).take([REACH], Facts().plus(PLACE, place))


NO_NETWORK = TransferError("no route to host")


def test_layouts_need_no_network(machine: FakeMachine) -> None:
    host = Line(machine)
    reach(host, Place(RegistryLocation(folder=Path("/x")), "a", "b"))
    assert host.asked == 0
    assert REACHABLE in REACH.gives


def test_a_registry_that_answers_is_asked_once(machine: FakeMachine) -> None:
    host = Line(machine)
    reach(host)
    assert (host.asked, host.seconds) == (1, 0.0)


def test_an_address_that_comes_late(machine: FakeMachine) -> None:
    host = Line(machine, *[NO_NETWORK] * 5)
    reach(host)
    assert (host.asked, host.seconds) == (6, 5.0)


def test_a_network_that_never_comes(machine: FakeMachine) -> None:
    """91 seconds, one question each: the deadline itself still counts."""
    host = Line(machine, NO_NETWORK, forever=True)
    with pytest.raises(TransferError, match="no route to host"):
        reach(host)
    assert (host.asked, host.seconds) == (92, 91.0)


@pytest.mark.parametrize(
    "answer",
    [
        TransferError("404", status=404),
        TransferError("500", status=500),
        StalledError("stalled"),
        AuthError("refused", status=401),
        MissingError("no such tag"),
    ],
)
def test_an_answer_is_an_answer(machine: FakeMachine, answer: MachineOSError) -> None:
    host = Line(machine, answer, forever=True)
    with pytest.raises(type(answer)):
        reach(host)
    assert (host.asked, host.seconds) == (1, 0.0)


def test_the_phases_say_what_they_need() -> None:
    assert [(part.name, set(part.needs), set(part.gives)) for part in PARTS] == [
        ("check", set(), {BOOTED}),
        ("look", {WISH, BOOTED}, {PLACE, DISK}),
        ("identify", {BOOTED}, {IDENTITY, KEY, BLOCKS_KEY, HOST_CA}),
        ("reach", {PLACE}, {REACHABLE}),
    ]


def test_the_key_is_shown_nowhere(machine: FakeMachine) -> None:
    """The predecessor logged it, in hex."""
    key = Secret(b"do not show this")
    machine.keys[INSTALL_KEY] = key
    watched = conftest.install(machine)
    for text in map(repr, [*watched.steps, *watched.points, watched.host.said]):
        assert "do not show this" not in text
        assert key.reveal().hex() not in text
