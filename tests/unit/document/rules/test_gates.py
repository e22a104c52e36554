"""Every rule, at every gate that can see a breach: refused, by that rule, in the same words.

A rule without a bad input fails here, and so does a gate that stops refusing. What a gate refuses
without a rule is found from the source: see the last test.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from machineos.document.rules.registry import RULES
from machineos.document.rules.rule import Gate
from machineos.errors import DocumentError, MachineOSError, SeveralError
from unit.document.conftest import World
from unit.document.rules import gates
from unit.document.rules.bad import BAD
from unit.document.rules.gates import MemoryWorld, Scene

pytestmark = pytest.mark.early

TOOLS = [pytest.mark.tool(name) for name in ("mksquashfs", "sqfs2tar", "veritysetup")]
# What somebody has to look into an image for that is ready made.
INSIDE = {
    "image-folders",
    "image-stack",
    "config-user-files",
    "config-user-known",
    "image-bootable",
}
EVERYTHING = [
    pytest.param(
        gate,
        rule.name,
        marks=TOOLS if gate in {"publish", "verify"} and rule.name in INSIDE else (),
    )
    for rule in RULES
    for gate in rule.gates
]


@pytest.fixture
def scene(world: World, tmp_path: Path) -> Scene:
    folder = tmp_path / "scene"
    folder.mkdir()
    return Scene(MemoryWorld(world.images, world.root, world.authority), folder)


def test_every_rule_has_a_bad_input_for_every_gate() -> None:
    assert {rule.name: set(rule.gates) for rule in RULES} == {
        name: set(bad.attacks) for name, bad in BAD.items()
    }


def test_what_is_good_passes_every_gate(scene: Scene) -> None:
    """Or nothing below would mean anything."""
    good = scene.document()
    gates.publish(scene, good)
    gates.mosd(scene, good)
    gates.mosd_image(scene)
    gates.mosd_handover(scene, lambda _document: None)
    for gate in (gates.verify, gates.install, gates.boot):
        scene.world.memory.empty()
        gate(scene, good)
    gates.boot_layer(scene)


def said(error: MachineOSError, rule: str) -> list[str]:
    """Return what an error says because of that rule."""
    if isinstance(error, SeveralError):
        return [message for one in error.errors for message in said(one, rule)]
    if isinstance(error, DocumentError):
        return [fault.message for fault in error.faults if fault.rule == rule]
    return [error.message] if error.rule == rule else []


@pytest.mark.parametrize(("gate", "name"), EVERYTHING)
def test_a_breach_is_refused_in_the_words_of_its_rule(scene: Scene, gate: Gate, name: str) -> None:
    bad = BAD[name]
    with pytest.raises(MachineOSError) as caught:
        bad.attacks[gate](scene)
    found = said(caught.value, name)
    assert any(bad.words in message for message in found), f"{caught.value!r}: {caught.value}"
