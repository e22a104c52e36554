"""mosd: what it says and writes, and when; and mosd as a process."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from machineos.core import run
from machineos.core.clock import SystemClock
from machineos.core.command import Command
from machineos.core.steps import Step
from machineos.daemon.loop import Loop, Moment
from machineos.daemon.mosd import SIGNALS, Daemon
from machineos.daemon.start import Places, begin
from machineos.daemon.wiring import build
from machineos.document.between.handover import Handover, Service, Volume, encode_handover
from machineos.document.between.status import Status, parse_status
from machineos.errors import DocumentError, MissingError
from machineos.service.act.manager import performing
from machineos.service.plan import steps
from unit.service.bed import FOLDERS, Bed
from waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from machineos.core.clock import Clock

LIMIT = PATIENCE
WEB = "machineos-web.service"
SHOWN = """\
Id={}
LoadState=loaded
ActiveState={}
SubState=x
Result=success
NRestarts=0
MainPID=7
ExecMainStatus=0
"""


class HastyLoop(Loop):
    """Notes how long it is asked to wait for the next look, and does not."""

    def __init__(self) -> None:
        super().__init__(SystemClock())
        self.pauses: list[float] = []

    def after(self, seconds: float, act: Callable[[], None]) -> Moment:
        if seconds < LIMIT:
            self.pauses.append(seconds)
            return super().after(0, act)
        return super().after(seconds, act)


@dataclass
class StridingClock(SystemClock):
    """Goes on by as much each time it is looked at."""

    stride: float
    passed: float = 0.0

    def monotonic(self) -> float:
        self.passed += self.stride
        return self.passed


@dataclass
class Machine:
    """mosd on a machine in memory. ``answers`` are what systemd says, one for each look: a state of
    the unit, or a script of its own; at the look after the last one mosd is told to end."""

    folder: Path
    bed: Bed = field(default_factory=Bed)
    services: tuple[Service, ...] = ()
    answers: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    asked: list[tuple[str, ...]] = field(default_factory=list)
    loop: HastyLoop = field(default_factory=HastyLoop)

    @property
    def path(self) -> Path:
        return self.folder / "status.json"

    def status(self) -> Status:
        return parse_status(self.path.read_bytes())

    def show(self, units: Sequence[str]) -> Command:
        if not self.answers:
            os.kill(os.getpid(), signal.SIGTERM)
            return Command(("sleep", "1000"), LIMIT)
        self.asked.append(tuple(units))
        answer = self.answers.pop(0)
        script = answer if " " in answer else f"echo {shlex.quote(SHOWN.format(WEB, answer))}"
        return Command(("sh", "-c", script), LIMIT)

    def notify(self, message: str) -> None:
        self.sent.append(message)
        self.sent.append("with status" if self.path.exists() else "without status")

    def run(self, *, told: bool = True, clock: Clock | None = None) -> None:
        """Run mosd until it has been told to end."""
        clock = clock or SystemClock()
        perform = performing(self.bed.host)

        def telling(step: Step[object]) -> object:
            if not told and isinstance(step, steps.Look):
                os.kill(os.getpid(), signal.SIGTERM)
            return perform(step)

        document = self.bed.handover(*self.services)
        Daemon(
            self.bed.manager(*self.services, perform=telling),
            document,
            loop=self.loop,
            show=self.show,
            status_path=self.path,
            notify=self.notify,
            log=self.lines.append,
            clock=clock,
        ).run()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    bed = Bed()
    return Machine(tmp_path, bed, (bed.service("web"),))


def test_ready_when_the_status_is_written_and_an_end_that_leaves_everything(
    machine: Machine,
) -> None:
    machine.answers = ["active"]
    machine.run()
    assert machine.sent == ["READY=1", "with status", "STOPPING=1", "with status"]
    assert machine.lines == [
        "generation 000000000000 with 1 services",
        "web: running",
        "stopping; services stay as they are",
    ]
    assert machine.asked == [(WEB,)]
    assert machine.loop.pauses == [5.0]
    found = machine.status()
    assert (found.generation, found.product) == ("0" * 64, "default")
    assert (found.settled, found.good, found.problems) == (True, True, ())
    assert found.services[0].pid == 7
    assert machine.bed.host.known[WEB].active == "active"


@pytest.mark.parametrize(
    ("answers", "late"),
    [
        (["active"] * 3, False),
        (["active"] * 4, True),
        (["active", "active", "activating", *["active"] * 3], False),
        (["active", "active", "activating", *["active"] * 4], True),
        (["active", "active", "false x", "active"], True),  # systemd did not answer once
        (["activating"] * 11, False),
        (["activating"] * 12, True),
    ],
)
def test_what_waits_for_the_services_waits_until_they_are_calm(
    machine: Machine, answers: list[str], late: bool
) -> None:
    """Half a minute since the last of them was starting, and two at most; here ten seconds lie
    between two looks."""
    machine.answers = [*answers]
    machine.run(clock=StridingClock(10.0))
    assert machine.bed.host.shared is late
    assert (FOLDERS.log in machine.bed.host.mounts) is late


def test_what_waits_is_done_once(machine: Machine) -> None:
    machine.answers = ["active"] * 9
    machine.run(clock=StridingClock(30.0))
    assert machine.bed.host.started == [WEB, "mosd-log.service"]


def test_told_to_end_while_it_reconciles_it_still_writes_the_status(machine: Machine) -> None:
    machine.answers = ["active", "never asked"]
    machine.run(told=False)
    assert machine.sent[0] == "READY=1"
    assert machine.status().good
    assert machine.answers == ["never asked"]


def test_it_looks_often_while_something_starts_and_logs_what_changes(machine: Machine) -> None:
    machine.answers = ["activating", "activating", "active"]
    machine.run()
    assert machine.lines[1:-1] == ["web: starting", "web: running"]
    assert machine.asked == [(WEB,)] * 3
    assert machine.loop.pauses == [0.5, 0.5, 5.0]
    assert machine.status().settled


def test_a_look_that_fails_is_said_and_the_status_stays(machine: Machine) -> None:
    machine.answers = ["activating", "echo no bus >&2; exit 1"]
    machine.run()
    assert machine.lines[2].startswith("cannot see the services: sh -c ")
    assert machine.lines[2].endswith("exit status 1: no bus")
    assert not machine.status().settled
    assert machine.loop.pauses == [0.5, 5.0]


def test_an_answer_that_makes_no_sense_is_such_a_failure(machine: Machine) -> None:
    machine.answers = ["echo Id=x"]
    machine.run()
    assert machine.lines[1] == "cannot see the services: systemctl show: cannot read 'Id=x'"
    assert machine.sent[:2] == ["READY=1", "without status"]
    assert not machine.path.exists()


def test_without_units_nobody_is_asked(machine: Machine) -> None:
    machine.services = (machine.bed.service("bad", machine.bed.image({})),)
    machine.run(told=False)
    assert machine.asked == []
    found = machine.status()
    assert (found.settled, found.good) == (True, False)
    assert found.services[0].state == "refused"
    assert machine.lines[1].startswith("bad: refused: configuration of the image of bad")


def test_a_machine_without_services_is_good(machine: Machine) -> None:
    machine.services = ()
    machine.run(told=False)
    found = machine.status()
    assert (found.settled, found.good, found.services) == (True, True, ())
    assert machine.lines[0] == "generation 000000000000 with 0 services"


def test_what_ends_it() -> None:
    assert set(SIGNALS) == {signal.SIGTERM, signal.SIGINT}


# --- its beginning


def handover(tmp_path: Path, *volumes: Volume) -> Handover:
    bed = Bed(volumes=volumes)
    return bed.handover(bed.service("web"))


def test_the_places() -> None:
    places = Places()
    assert places.handover == Path("/run/machineos/boot.json")
    assert places.status == Path("/run/machineos/status.json")
    assert places.units == Path("/run/systemd/system")
    assert places.resolv_conf == Path("/run/systemd/resolve/resolv.conf")


def test_a_machine_without_handover_is_told_so(tmp_path: Path) -> None:
    places = Places(run=tmp_path)
    with pytest.raises(MissingError, match=r"boot\.json does not exist") as caught:
        begin(places)
    assert caught.value.hint == "mosd runs only on a booted appliance"
    places.handover.write_bytes(b"{}")
    with pytest.raises(DocumentError):
        begin(places)
    places.handover.write_bytes(encode_handover(handover(tmp_path)))
    start = begin(places)
    assert start.storage.folder == Path("/run/machineos/volumes")
    lines: list[str] = []
    assert isinstance(build(start, notify_socket="", log=lines.append), Daemon)


def test_the_process_logs_one_line_and_has_an_exit_status() -> None:
    if Path("/run/machineos/boot.json").exists():
        pytest.skip("this is an appliance")
    source = str(Path(__file__).parents[3] / "src")
    result = run.run(
        [sys.executable, "-m", "machineos.daemon"],
        timeout=PATIENCE,
        env={"PYTHONPATH": source},
        check=False,
    )
    assert result.status == MissingError.exit_code
    assert result.stderr.decode().count("\n") == 1
    assert result.stderr.startswith(b"mosd: cannot go on: /run/machineos/boot.json")
