"""The steps of an installation: frozen data, each with one call, and one caller of the host."""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

import machineos.install
from fakes.machine import FakeHost, FakeMachine
from frozen import faults
from machineos.core.steps import Step
from machineos.install import steps
from machineos.install.host import LinuxHost
from machineos.install.phases import PHASES, given
from machineos.install.source import WISH, Wish
from machineos.install.steps import CALLS, Host, perform
from machineos.install.write import CONFIG_UUID, FIRST_SLOT, SLOT
from machineos.state.config import steps as config
from machineos.state.images import steps as images
from machineos.state.slots import steps as slots
from machineos.state.store import steps as store
from machineos.state.volumes import steps as volumes

from . import conftest
from .conftest import install

MODULES = (steps, config, images, slots, store, volumes)
STEPS = {
    found
    for module in MODULES
    for found in vars(module).values()
    if isinstance(found, type) and issubclass(found, Step) and found is not Step
}
SOURCE = Path(machineos.install.__file__).parent


def test_every_step_has_one_call() -> None:
    assert set(CALLS) == STEPS
    assert len(STEPS) > 30


def test_every_step_is_taken_by_an_installation(machine: FakeMachine) -> None:
    """And is frozen data, all the way down."""
    machine.small_disks["vdb"] = {"url.txt": f"{conftest.HOST}/machine/install:1.0.0"}
    machine.disks = (*machine.disks, conftest.SMALL)
    taken = install(machine, None).steps + install(machine, conftest.PLACE, disk="vda").steps
    machine.small_disks.clear()
    taken += install(machine, None).steps
    for step in taken:
        assert list(faults(step)) == []
    assert {type(step) for step in taken} | {steps.Sleep} == STEPS


def test_hosts_have_nothing_that_is_not_asked_for() -> None:
    """The real host and the fake one are the protocol, and what each is besides is its own."""
    asked = {
        name
        for kind in inspect.getmro(Host)
        for name, value in vars(kind).items()
        if callable(value) and not name.startswith("_")
    }
    for real in (LinuxHost, FakeHost):
        assert asked <= {name for name in dir(real) if not name.startswith("_")}
    own = {name for name in vars(LinuxHost) if not name.startswith("_")}
    assert own == asked


def test_one_caller_of_the_host() -> None:
    """Only the table of calls names the methods of a host; phases have nothing to call them on."""
    asked = {name for name in dir(Host) if not name.startswith("_")}
    for path in SOURCE.glob("*.py"):
        if path.name in {"host.py", "steps.py"}:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert not (node.value.id == "host" and node.attr in asked), path


def test_a_step_of_somebody_else(machine: FakeMachine) -> None:
    @dataclass(frozen=True)
    class Other(Step[None]):
        point: ClassVar[str] = ""

    with pytest.raises(KeyError, match="Other"):
        perform(machine.boot(), Other())


def test_what_is_given_before_the_first_phase() -> None:
    facts = given(Wish(None, "vda"), uuid="x")
    assert facts.names() == {WISH, CONFIG_UUID, SLOT}
    assert (facts[WISH], facts[CONFIG_UUID], facts[SLOT]) == (Wish(None, "vda"), "x", FIRST_SLOT)


def test_names_of_facts() -> None:
    """Errors in the order of phases are told by them."""
    named: set[str] = set().union(*(phase.needs | phase.gives for phase in PHASES))
    assert named == {
        "booted from the medium", "wish", "place", "disk", "identity", "configuration key",
        "key of the volumes' blocks", "host CA", "registry reachable",
        "room", "fetched", "staged", "partition table", "devices", "file systems", "images stored",
        "uuid of the configuration volume", "configuration stored", "slot", "boot files read back",
        "boot entry", "end",
    }  # fmt: skip
