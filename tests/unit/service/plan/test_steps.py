"""Every step is a frozen value, is one call of the host, and can be repeated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

import machineos
from frozen import faults
from machineos.core.digest import Digest
from machineos.core.idrange import IdRange
from machineos.core.steps import Runner, Step
from machineos.core.word import RootHash
from machineos.document.model.names import Label, Unfinished
from machineos.host.kernel.flags import Flag
from machineos.oci.model.atomfs import Layer
from machineos.service.act.manager import performing
from machineos.service.plan import machine, service, steps
from machineos.service.plan.facts import Policy, World
from unit.service.act.test_killed import KINDS, SCENES, Scene, taken
from unit.service.bed import FOLDERS, POLICY
from unit.service.plan.cases import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from fakes.service import MemoryHost
    from machineos.service.plan.host import Host

POINTS = {
    "CreateVolume": "volume created",
    "FormatVolume": "volume formatted",
    "FinishVolume": "volume finished",
    "RenameVolume": "volume named",
    "OpenVolume": "volume opened",
    "RemoveVolume": "volume removed",
    "OwnFolder": "volume folder",
    "SetJournalsAside": "journals set aside",
}


@pytest.mark.parametrize("name", sorted(SCENES))
def test_a_plan_is_frozen_all_the_way_down(name: str) -> None:
    for step in taken(SCENES[name]):
        assert list(faults(step)) == []


def test_the_facts_of_the_machine_are_frozen_too() -> None:
    """But for what msgspec gives out of a document: a dict of annotations never gets there."""
    scene = SCENES["much_has_changed"]
    host = scene.host()
    world = Runner[World](performing(host)).run(
        machine.BEGIN, World(scene.on(host).handover(*scene.services), POLICY)
    )
    assert list(faults(world)) == []
    progress = machine.begin(world, scene.services[1])
    done = Runner[Any](performing(host)).run(service.PHASES, progress)
    assert list(faults(done)) == []


def test_only_the_runner_calls_the_host() -> None:
    """``on`` stands in the module of the steps, and is called in one other place."""
    source = Path(machineos.__file__).parent
    users = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*.py")
        if ".on(" in path.read_text()
    }
    assert users == {"service/act/manager.py"}


ANSWERED = {
    "Look", "ReadBlob", "ReadFile", "SeeMount", "LookInside", "OpenLayer", "SeeVolume",
    "ListVolumes", "ListLinks", "LogSize", "ShowUnits",
}  # fmt: skip
PATH, OTHER = Path("/path"), Path("/other")
FLAGS = Flag.RDONLY | Flag.NOSUID
DIGEST = Digest("sha256", "1" * 64)
LAYER = Layer(DIGEST, 7, "type", RootHash("2" * 64))
LABEL, UNFINISHED = Label("a"), Unfinished("a+new")
CALLS: dict[steps.Act[Any], tuple[object, ...]] = {
    steps.Say("text"): ("say", "text"),
    steps.Look(FOLDERS): ("look", FOLDERS),
    steps.ReadBlob(DIGEST, 7): ("read_blob", DIGEST, 7),
    steps.ReadFile(PATH, 7): ("read_file", PATH, 7),
    steps.WriteFile(PATH, b"data", 0o600): ("write_file", PATH, b"data", 0o600),
    steps.RemoveFile(PATH): ("remove_file", PATH),
    steps.MakeFolder(PATH, 0o711): ("make_folder", PATH, 0o711),
    steps.RemoveFolder(PATH): ("remove_folder", PATH),
    steps.SeeMount(PATH): ("mounted", PATH),
    steps.Mount("x", PATH, "ext4", FLAGS, "d"): ("mount", "x", PATH, "ext4", FLAGS, "d"),
    steps.Mount("x", PATH, "ext4", FLAGS): ("mount", "x", PATH, "ext4", FLAGS, ""),
    steps.Clone(PATH, OTHER, IdRange(1, 2)): ("clone", PATH, OTHER, IdRange(1, 2)),
    steps.Unmount(PATH): ("unmount", PATH),
    steps.LookInside(PATH, ("/a",), ("/b",)): ("look_inside", PATH, ("/a",), ("/b",)),
    steps.OpenLayer(LAYER, PATH, OTHER): ("open_layer", LAYER, PATH, OTHER),
    steps.CloseLayer(DIGEST): ("close_layer", DIGEST),
    steps.SeeVolume(LABEL): ("volume_device", LABEL),
    steps.ListVolumes(): ("volumes",),
    steps.CreateVolume(UNFINISHED, 7): ("create_volume", UNFINISHED, 7),
    steps.FormatVolume(UNFINISHED, LABEL): ("format_volume", UNFINISHED, LABEL),
    steps.FinishVolume(UNFINISHED): ("finish_volume", UNFINISHED),
    steps.RenameVolume(UNFINISHED, LABEL): ("rename_volume", UNFINISHED, LABEL),
    steps.OpenVolume(LABEL): ("open_volume", LABEL),
    steps.RemoveVolume(UNFINISHED): ("remove_volume", UNFINISHED),
    steps.LogSize(): ("log_size",),
    steps.SetJournalsAside(PATH): ("set_journals_aside", PATH),
    steps.ShareDisk(): ("share_disk",),
    steps.RunUnit("u"): ("run_unit", "u"),
    steps.OwnFolder(PATH, 1, 2): ("own_folder", PATH, 1, 2),
    steps.MakeBridge("b", ("x",)): ("make_bridge", "b", ("x",)),
    steps.ApplyRules("s"): ("apply_rules", "s"),
    steps.Switch("n", True): ("switch", "n", True, False),
    steps.Switch("n", False, optional=True): ("switch", "n", False, True),
    steps.ListLinks(): ("links",),
    steps.ReloadUnits(): ("reload_units",),
    steps.ResetFailed(("u",)): ("reset_failed", ("u",)),
    steps.StartUnits(("u",)): ("start_units", ("u",)),
    steps.StopUnits(("u",)): ("stop_units", ("u",)),
    steps.ShowUnits(("u",)): ("show_units", ("u",)),
}


@pytest.mark.parametrize("step", CALLS, ids=lambda step: type(step).__name__)
def test_a_step_is_one_call(step: steps.Act[Any]) -> None:
    calls: list[tuple[object, ...]] = []

    class Noting:
        def __getattr__(self, name: str) -> Callable[..., object]:
            def call(*words: object) -> object:
                calls.append((name, *words))
                return "answer"

            return call

    answer = step.on(cast("Host", Noting()))
    assert calls == [CALLS[step]]
    assert answer in {"answer", None}
    assert (answer is None) == (type(step).__name__ not in ANSWERED)


def test_every_step_is_in_the_table() -> None:
    assert {type(step) for step in CALLS} == KINDS


@pytest.mark.parametrize("kind", sorted(KINDS, key=str), ids=lambda kind: kind.__name__)
def test_fault_points(kind: type[steps.Act[object]]) -> None:
    assert kind.point == POINTS.get(kind.__name__, "")
    assert kind.__doc__


def test_a_fault_point_names_its_volume() -> None:
    found = {
        step.fault_point
        for scene in SCENES.values()
        for step in taken(scene)
        if "blobs" in step.fault_point
    }
    assert found == {
        "volume created:blobs+new",
        "volume formatted:blobs+new",
        "volume finished:blobs+new",
        "volume named:blobs",
        "volume opened:blobs",
        "volume removed:blobs+new",
        "volume folder:/data/blobs/volume",
    }


def test_a_step_without_a_call_is_no_step() -> None:
    with pytest.raises(NotImplementedError):
        steps.Act[None]().on(SCENES["first_boot"].host())


def again(scene: Scene) -> tuple[MemoryHost, list[tuple[object, object]]]:
    """Take every step twice, and return what each was answered the first and the second time."""
    host = scene.host()
    perform = performing(host)
    answers: list[tuple[object, object]] = []

    def twice(step: Step[object]) -> object:
        first, state = perform(step), host.state
        second = perform(step)
        assert host.state == state, step
        answers.append((first, second))
        return second

    scene.on(host).manager(*scene.services, perform=twice).reconcile()
    return host, answers


@pytest.mark.parametrize("name", sorted(SCENES))
def test_every_step_can_be_repeated(name: str) -> None:
    """The machine is the same after the second time, and the answer too."""
    scene = SCENES[name]
    host, answers = again(scene)
    assert all(first == second for first, second in answers)
    wanted = scene.host()
    scene.on(wanted).run(*scene.services)
    assert host.state == wanted.state
    assert sorted(host.started) == sorted(wanted.started)


def test_without_a_profile_there_is_none() -> None:
    assert Policy(FOLDERS).apparmor == PLAIN.apparmor == "unconfined"
    assert Policy(FOLDERS).resolv_conf is None
