"""What root of the running system asked for: the worst of each request makes a line, no more."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.boot import FakeMachine, HandedOverError, Outcome
from fakes.bootparts.files import Kind, Tree
from machineos.boot.facts import IMAGES, SETTINGS, STORE, Facts, Image
from machineos.boot.phases import requests
from machineos.boot.steps import ListFolder, ReadFile, Say
from machineos.errors import TpmError
from machineos.oci.model.atomfs import Layer
from machineos.trust.measure.tpm_policy import render_policies
from machineos.trust.seal.layout import Index
from unit.boot.ends import assert_trusted, handed_over
from unit.boot.worlds import (
    UKIS,
    Content,
    boot_files_image,
    config_of,
    content,
    image_of,
    layer_of,
    machine,
    policies_of,
    provisioned_tpm,
    publish_content,
    settings,
    system_disk,
    uki,
)

NEW = "0003"


def a_machine(bootkit: str = NEW, *, running: str = NEW, floor: str = "0001") -> FakeMachine:
    """Return a machine whose bootkit and whose running image have these versions."""
    image = uki(policy_version=running)
    image = type(image)(
        image.measured, image.settings, image.anchors,
        render_policies(policies_of(UKIS["run"], running)),
    )  # fmt: skip
    what = published(bootkit)
    return machine(uki=image, disks=[system_disk(what=what)], tpm=provisioned_tpm(floor=floor))


_PUBLISHED: dict[str, Content] = {}


def published(bootkit: str) -> Content:
    if bootkit not in _PUBLISHED:
        _PUBLISHED[bootkit] = publish_content(boot_files=boot_files_image(bootkit))
    return _PUBLISHED[bootkit]


def tree_of(made: FakeMachine) -> Tree:
    return config_of(made).plain.tree


def ask(made: FakeMachine, name: str, data: bytes, kind: Kind = "file") -> None:
    tree = tree_of(made)
    if tree.get("requests") is None:
        tree.folder("requests")
    tree.put(f"requests/{name}", data, kind=kind)


def request(bootkit: str = NEW, **changes: object) -> bytes:
    usual = {
        "version": 1, "kind": "raise-floor", "object": str(image_of("bootkit", published(bootkit))),
    }  # fmt: skip
    return json.dumps(usual | changes).encode()


def came_up(made: FakeMachine) -> Outcome:
    """Boot a machine that must come up, whatever it was asked for."""
    outcome = made.boot()
    assert outcome.end is HandedOverError, outcome.lines
    assert_trusted(outcome)
    return outcome


def floor(made: FakeMachine) -> str:
    return made.tpm.nv[Index.POLICY_VERSION].decode()


# -- the control: what is asked for rightly is done


def test_the_floor_rises_to_the_version_of_the_named_generation() -> None:
    made = a_machine()
    ask(made, "floor.json", request())
    outcome = came_up(made)
    assert floor(made) == NEW
    assert f"images older than policy version {NEW} do not boot again" in outcome.lines
    assert made.tpm.writes == 1
    again = came_up(made)  # the request is still there, and there is nothing to do any more
    assert (floor(made), made.tpm.writes) == (NEW, 1)
    assert f"images from policy version {NEW} on boot, as before" in again.lines
    assert not [line for line in again.lines if "request" in line or "older" in line]
    made.uki = uki()
    assert "too old" in made.boot().reason


@pytest.mark.parametrize(
    ("bootkit", "running", "expected"),
    [("0002", "0005", "0002"), ("0005", "0002", "0002"), ("0001", "0005", "0001")],
)
def test_it_is_the_lower_of_bootkit_and_running_image(
    bootkit: str, running: str, expected: str
) -> None:
    """An image that somebody put on the EFI partition does not lock out what is installed, and what
    is installed not the image that runs."""
    made = a_machine(bootkit, running=running)
    ask(made, "floor.json", request(bootkit))
    came_up(made)
    assert floor(made) == expected


def test_a_floor_never_falls() -> None:
    made = a_machine("0002", running="0005", floor="0004")
    ask(made, "floor.json", request("0002"))
    came_up(made)
    assert (floor(made), made.tpm.writes) == ("0004", 0)


# -- the worst that root can write

DIGEST = "sha256:" + "ab" * 32


def later(**changes: object) -> Callable[[], bytes]:
    """Return a request that is made when it is needed: what it names is published first."""
    return lambda: request(**changes)  # type: ignore[arg-type]


WORST: dict[str, tuple[Callable[[], bytes], str]] = {
    "a value": (later(value="9999"), "unknown field"),
    "a floor": (later(floor="9999"), "unknown field"),
    "another object": (
        later(object=DIGEST),
        "no verified generation has the bootkit sha256:abab",
    ),
    "no digest": (later(object="9999"), "is not a digest"),
    "an object that is a path": (later(object="../../dev/mem"), "is not a digest"),
    "an object that is none": (later(object=None), "Expected `str`"),
    "another kind": (later(kind="lower-floor"), "'lower-floor' is not known to this version"),
    "make a CA": (later(kind="new-host-ca"), "'new-host-ca' is not known to this version"),
    "seal anew": (later(kind="seal-anew"), "'seal-anew' is not known to this version"),
    "PCR 7": (later(kind="authorise-pcr7"), "'authorise-pcr7' is not known to this version"),
    "another version": (later(version=2), "version"),
    "keys twice": (lambda: request()[:-1] + b', "kind": "raise-floor"}', "kind"),
    "too large": (lambda: request() + b" " * 4096, "is larger than 4096 bytes"),
    "deep": (lambda: b"[" * 4000, "levels"),
    "no JSON": (lambda: b"\x1b[2Jraise", ""),
    "nothing": (bytes, ""),
    "not UTF-8": (lambda: b'{"version": 1, "kind": "\xff"}', "UTF-8"),
    "control characters": (later(kind="\r\n\x1b[2J\x07BOOT FAILED: no"), "not known"),
}


@pytest.mark.attack(
    "root",
    "asks the next boot for what suits it: each request with the worst value",
    "nothing changes, and it is told",
)
@pytest.mark.parametrize("name", sorted(WORST))
def test_the_worst_value_changes_nothing_and_is_reported(name: str) -> None:
    data, words = WORST[name]
    made = a_machine()
    ask(made, "worst.json", data())
    before = dict(made.tpm.nv)
    outcome = came_up(made)
    assert made.tpm.nv == before
    assert made.tpm.writes == 0
    (line,) = [line for line in outcome.lines if line.startswith("request ")]
    assert line.startswith("request worst.json is not carried out: ")
    assert line.count("worst.json") == 1
    assert words in line
    assert len(line) < 200
    assert line.isascii()
    assert line.isprintable()
    assert outcome.reason == ""
    calls = [name for name, _ in outcome.host.calls]
    assert "raise_floor" not in calls


@pytest.mark.parametrize("name", ["up.JSON", ".json", "-a.json", "a.json~", "a b.json", "\x1b[2J",
                                  "x" * 70 + ".json", "\udcff.json"])  # fmt: skip
def test_a_name_that_is_none_of_a_request(name: str) -> None:
    made = a_machine()
    ask(made, name, request())
    outcome = came_up(made)
    assert floor(made) == "0001"
    (line,) = [line for line in outcome.lines if line.startswith("request ")]
    assert line.endswith(" is not carried out: its name is not one of a request")
    assert line.isprintable()


@pytest.mark.parametrize("kind", ["folder", "link", "fifo"])
def test_what_is_no_file(kind: Kind) -> None:
    made = a_machine()
    ask(made, "floor.json", b"/config/other", kind)
    outcome = came_up(made)
    assert floor(made) == "0001"
    assert [line for line in outcome.lines if line.startswith("request floor.json is not carried")]


def test_requests_that_are_no_folder() -> None:
    made = a_machine()
    tree_of(made).put("requests", b"x")
    outcome = came_up(made)
    (line,) = [line for line in outcome.lines if "request" in line]
    assert line.startswith("no request is carried out: ")


def test_of_too_many_none_is_read() -> None:
    made = a_machine()
    for number in range(17):
        ask(made, f"r{number}.json", request())
    outcome = came_up(made)
    assert floor(made) == "0001"
    assert "no request is carried out: there are more than 16" in outcome.lines
    del tree_of(made).entries["requests/r3.json"]
    came_up(made)
    assert floor(made) == NEW


def test_a_good_one_among_bad_ones_is_carried_out() -> None:
    made = a_machine()
    ask(made, "a.json", b"bad")
    ask(made, "b.json", request())
    ask(made, "c.json", request(object=DIGEST))
    outcome = came_up(made)
    assert floor(made) == NEW
    assert len([line for line in outcome.lines if "is not carried out" in line]) == 2


# -- what does not depend on the request


@pytest.mark.parametrize("bootkit", ["12", "00x1", "0001\nVERSION_ID=0009"])
def test_a_bootkit_that_does_not_say_its_version(bootkit: str) -> None:
    made = a_machine(bootkit)
    ask(made, "floor.json", request(bootkit))
    outcome = came_up(made)
    assert (floor(made), made.tpm.writes) == ("0001", 0)
    assert [line for line in outcome.lines if line.startswith("no request is carried out: ")]


def test_a_tpm_that_refuses_does_not_end_the_boot() -> None:
    made = a_machine()

    def refuse(_what: str) -> None:
        raise TpmError("the TPM refused NV_WRITE")

    made.tick = refuse
    ask(made, "floor.json", request())
    outcome = came_up(made)
    assert "no request is carried out: the TPM refused NV_WRITE" in outcome.lines


def test_who_asks_for_nothing_is_told_nothing() -> None:
    made = a_machine()
    outcome = handed_over(made)
    assert not [line for line in outcome.lines if "request" in line]
    assert "read_floor" not in [name for name, _ in outcome.host.calls]


def test_requests_are_read_between_the_doors() -> None:
    made = a_machine()
    ask(made, "floor.json", request())
    calls = came_up(made).host.calls
    names = [name for name, _ in calls]
    doors = [at for at, name in enumerate(names) if name == "close_door"]
    assert doors[0] < names.index("list_folder") < names.index("raise_floor") < doors[1]


def test_a_bootkit_without_boot_files_carries_out_nothing() -> None:
    """The rule on layers lets that come to nothing; the phase does not rely on it."""
    targets = {one.service_name: one for one in content().install.targets}
    layer = Layer.of(layer_of("bootkit", machine()))
    image = Image(targets["bootkit"], layer, layer.digest, b"signature")
    facts = Facts().plus(SETTINGS, settings()).plus(IMAGES, (image,)).plus(STORE, Path("/store"))
    talk = requests.PHASE.talk(facts)
    assert isinstance(next(talk), ListFolder)
    assert isinstance(talk.send(("one.json",)), ReadFile)
    said = talk.send(request())
    assert isinstance(said, Say)
    assert said.text == "no request is carried out: the bootkit has no boot files"
