"""What waits for the services: the log's volume, made as one of a service is; the disk shared."""

from __future__ import annotations

from pathlib import Path

import pytest

from machineos.core.steps import Answers, check_order
from machineos.document.model.names import Label, Unfinished
from machineos.host.kernel.flags import Flag
from machineos.service.plan import settled, steps
from machineos.service.plan.facts import Log, World
from machineos.service.plan.host import Mounted, Persistent
from unit.service.bed import FOLDERS, POLICY, Bed

LABEL, UNFINISHED = Label("machine-log"), Unfinished("machine-log+new")
MOUNT = steps.Mount(
    "/dev/mapper/machine-volume-machine-log",
    Path("/var/log"),
    "ext4",
    Flag.NOSUID | Flag.NODEV | Flag.NOEXEC | Flag.NOSYMFOLLOW,
    "discard",
)
MOUNTED = (steps.MakeFolder(Path("/var/log"), 0o755), MOUNT)
KEPT = (
    steps.MakeFolder(Path("/var/log/journal"), 0o755),
    steps.SetJournalsAside(Path("/var/log/journal")),
    steps.RunUnit("mosd-log.service"),
)
SEEN = (
    steps.SeeMount(Path("/var/log")),
    steps.SeeVolume(LABEL),
    steps.ReadFile(Path("/run/systemd/journal/flushed"), 0),
)


def world(log: Log | None = None) -> World:
    return World(Bed().handover(), POLICY, log=log)


def test_the_order() -> None:
    for errand in settled.SETTLED:
        check_order(errand.phases, given=errand.given)
    assert [errand.what for errand in settled.SETTLED] == [
        "keeping the log", "sharing the disk by weights",
    ]  # fmt: skip


def test_what_is_seen() -> None:
    phase = settled.LogSeen()
    assert phase.plan(world()) == SEEN
    for answers, log in (
        ((None, False, None), Log(mounted=False, device=False, flushed=False)),
        ((Mounted(1, 0), True, b""), Log(mounted=True, device=True, flushed=True)),
    ):
        found = phase.learn(world(), Answers(list(zip(SEEN, answers, strict=True))))
        assert found.log == log


@pytest.mark.parametrize(("mounted", "device"), [(True, False), (False, True), (True, True)])
def test_lvm_is_asked_only_for_what_is_missing(mounted: bool, device: bool) -> None:
    phase, there = settled.LogListed(), world(Log(mounted=mounted, device=device, flushed=False))
    assert phase.plan(there) == ()
    assert phase.learn(there, Answers([])) == there
    missing = world(Log(mounted=False, device=False, flushed=False))
    asked = (steps.ListVolumes(), steps.LogSize())
    assert phase.plan(missing) == asked
    kept = (Persistent("a"),)
    log = phase.learn(missing, Answers([(asked[0], kept), (asked[1], 7)])).log
    assert log == Log(mounted=False, device=False, flushed=False, kept=kept, size=7)


@pytest.mark.parametrize(
    ("log", "wanted"),
    [
        (Log(mounted=True, device=True, flushed=True), ()),
        (Log(mounted=True, device=True, flushed=False), KEPT),
        (Log(mounted=False, device=True, flushed=False), (*MOUNTED, *KEPT)),
        (
            Log(mounted=False, device=False, flushed=False, size=(9 << 20) + 1),
            (
                steps.CreateVolume(UNFINISHED, 9 << 20),
                steps.FormatVolume(UNFINISHED, LABEL),
                steps.FinishVolume(UNFINISHED),
                steps.RenameVolume(UNFINISHED, LABEL),
                steps.OpenVolume(LABEL),
                *MOUNTED,
                *KEPT,
            ),
        ),
        (
            Log(mounted=False, device=False, flushed=False, kept=(Persistent("machine-log"),)),
            (steps.OpenVolume(LABEL), *MOUNTED, *KEPT),
        ),
    ],
)
def test_the_log_is_kept(log: Log, wanted: tuple[steps.Act[object], ...]) -> None:
    assert settled.LogKept().plan(world(log)) == wanted


def test_on_a_machine_in_memory() -> None:
    bed = Bed()
    manager = bed.settled(bed.service("web"))
    assert manager.problems == ()
    assert bed.host.mounts[FOLDERS.log].source == "/dev/mapper/machine-volume-machine-log"
    assert bed.host.group["machine-log"].size == 64 << 20
    assert bed.host.started == ["machineos-web.service", "mosd-log.service"]
    assert bed.host.shared


def test_a_volume_that_the_initrd_could_not_open_is_a_problem_of_the_machine() -> None:
    """The services run, the log stays in memory, and the volume stays as it is."""
    bed = Bed()
    bed.settled()
    bed.host = bed.host.power_cut()
    bed.host.opened.clear()
    before = bed.host.persistent
    manager = bed.settled(bed.service("web"))
    (problem,) = manager.problems
    assert problem.startswith("keeping the log: storage machine-log: its volume is not open")
    assert bed.host.persistent == before
    assert bed.host.known["machineos-web.service"].active == "active"
    assert bed.host.shared
