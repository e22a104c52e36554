"""mosd killed at every step, and the power cut at every fault point: the next one gets there too.

The steps are not listed here: a run that nothing disturbs says what they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import pytest

from changed import replace
from machineos.document.model.install import Mount, Network, Port
from machineos.document.model.names import Label, Unfinished
from machineos.service.act.manager import Manager, performing
from machineos.service.plan import steps
from unit.service.bed import TREE, Bed

if TYPE_CHECKING:
    from collections.abc import Callable

    from fakes.service import MemoryHost
    from machineos.core.steps import Step
    from machineos.document.between.handover import Service

pytestmark = pytest.mark.early

WEB, DNS = "machineos-web.service", "machineos-dns.service"
SIMPLE = Network(type="simple", ports=(Port(host=80, container=5000),))


KINDS = {
    kind
    for kind in vars(steps).values()
    if isinstance(kind, type) and issubclass(kind, steps.Act) and kind is not steps.Act
}


class Killed(BaseException):
    """Nothing may catch it."""


@dataclass(frozen=True)
class Scene:
    """A machine with a past, and the hand-over of the mosd that is killed."""

    bed: Bed
    services: tuple[Service, ...]

    def host(self) -> MemoryHost:
        """Return the machine, anew each time; what it was built of is never changed."""
        return self.bed.host.copy()

    def on(self, host: MemoryHost) -> Bed:
        return replace(self.bed, host=host)


def first_boot() -> Scene:
    """Everything is new: volumes of both kinds, shared and unshared images, one that is refused."""
    bed = Bed()
    other = bed.image({"Cmd": ["/bin/dns"], "User": "app"}, {**TREE, "/var/tmp": "folder"})
    broken = bed.image({})
    return Scene(
        bed,
        (
            bed.service(
                "web",
                network=SIMPLE,
                storage=(
                    Mount(dest="/data", label="blobs"),
                    Mount(dest="/tmp/m", label="memory"),
                    Mount(dest="/tmp/l", label="a-very-long-label-of-a-volume"),
                ),
            ),
            bed.service("dns", other, network=Network(type="host"), nsgroup="", hostid=0),
            bed.service("broken", broken),
            bed.service("files", other, type="fs-only", nsgroup="own", hostid=231072),
            bed.service("late", other, storage=(Mount(dest="/data", label="blobs"),)),
        ),
    )


def another_start() -> Scene:
    """Nothing is new: mosd alone was started again."""
    scene = first_boot()
    scene.bed.settled(*scene.services)
    return scene


def much_has_changed() -> Scene:
    """A new image, a dropped one, a failed unit with new files, a container that is only files now,
    and a service that may not run any more."""
    bed = Bed()
    old, new = bed.image(), bed.image({"Entrypoint": ["/bin/web", "2"]}, {**TREE, "/new": b""})
    lost = bed.image(None, {**TREE, "/lost": b""})
    before = [
        bed.service(name, old, network=SIMPLE if name == "web" else Network(type="simple"))
        for name in ("web", "dns", "files", "bad", "same", "moved")
    ]
    bed.run(*before, bed.service("gone", lost))
    bed.host.fail(DNS)
    return Scene(
        bed,
        (
            bed.service("web", new, network=SIMPLE, storage=(Mount(dest="/data", label="blobs"),)),
            bed.service("dns", bed.image({"Entrypoint": ["/bin/web", "3"]})),
            bed.service("files", old, type="fs-only"),
            bed.service("bad", old, storage=(Mount(dest="/data", label="nowhere"),)),
            bed.service("same", old, network=Network(type="simple")),
            bed.service("moved", old, nsgroup="other", hostid=300000),
            bed.service("added", new, network=Network(type="simple")),
        ),
    )


def unfinished_volume() -> Scene:
    """A boot before this one was cut while it made a volume."""
    bed = Bed()
    bed.host.create_volume(Unfinished("blobs+new"), 1)
    return Scene(bed, (bed.service("web", storage=(Mount(dest="/data", label="blobs"),)),))


def whole_volume_without_its_name() -> Scene:
    """A boot before this one was cut after the volume was whole, and before it was called so."""
    scene = unfinished_volume()
    scene.bed.host.format_volume(Unfinished("blobs+new"), Label("blobs"))
    scene.bed.host.finish_volume(Unfinished("blobs+new"))
    return scene


SCENES = {
    scene.__name__: scene()
    for scene in (
        first_boot,
        another_start,
        much_has_changed,
        unfinished_volume,
        whole_volume_without_its_name,
    )
}


def whole(manager: Manager) -> None:
    """Do all that mosd does."""
    manager.reconcile()
    manager.settle()


def taken(scene: Scene) -> list[Step[object]]:
    """Return the steps that a run takes when nothing disturbs it."""
    found: list[Step[object]] = []
    host = scene.host()
    perform = performing(host)

    def noting(step: Step[object]) -> object:
        found.append(step)
        return perform(step)

    whole(scene.on(host).manager(*scene.services, perform=noting))
    return found


@cache
def undisturbed(name: str) -> tuple[MemoryHost, tuple[str, ...]]:
    """Return the machine after a run that nothing disturbs, and the problems of the run after."""
    scene = SCENES[name]
    host = scene.host()
    scene.on(host).settled(*scene.services)
    return host, scene.on(host.copy()).settled(*scene.services).problems


def cut(host: MemoryHost, number: int) -> Callable[[Step[object]], object]:
    """Return a ``perform`` that dies when ``number`` steps have been taken."""
    perform = performing(host)
    left = number

    def dying(step: Step[object]) -> object:
        nonlocal left
        if left == 0:
            raise Killed
        answer = perform(step)
        left -= 1
        if left == 0:
            raise Killed
        return answer

    return dying


# After one step is before the next: so each place is here once, and the first has no step before.
STEPS = [
    pytest.param(name, number, id=f"{name}-{number}-{step}")
    for name, scene in SCENES.items()
    for number, step in enumerate(("start", *(type(each).__name__ for each in taken(scene))))
]


def test_there_is_something_to_cut() -> None:
    kinds = {type(step) for scene in SCENES.values() for step in taken(scene)}
    assert kinds == KINDS
    assert len(STEPS) > 250


@pytest.mark.parametrize(("name", "number"), STEPS)
def test_killed_at_every_step(name: str, number: int) -> None:
    scene = SCENES[name]
    wanted, problems = undisturbed(name)
    host = scene.host()
    bed = scene.on(host)
    running = {name: unit.pid for name, unit in host.known.items()}
    with pytest.raises(Killed):
        whole(bed.manager(*scene.services, perform=cut(host, number)))
    manager = bed.settled(*scene.services)
    assert host.state == wanted.state
    # Nothing is started twice, and what runs and is the same is not touched.
    assert sorted(host.started) == sorted(wanted.started)
    for unit, state in wanted.known.items():
        if state.pid == running.get(unit):
            assert host.known[unit].pid == state.pid
    assert manager.problems == problems


def points(scene: Scene) -> list[str]:
    """Return what is heard at the fault points of a run that nothing disturbs."""
    heard: list[str] = []
    whole(scene.on(scene.host()).manager(*scene.services, watch=heard.append))
    return heard


POINTS = [
    pytest.param(name, point, id=f"{name}-{point}")
    for name, scene in SCENES.items()
    for point in points(scene)
]


def test_every_volume_has_its_fault_points() -> None:
    assert points(SCENES["unfinished_volume"]) == [
        f"{moment} {point}"
        for point in (
            "volume removed:blobs+new",
            "volume created:blobs+new",
            "volume formatted:blobs+new",
            "volume finished:blobs+new",
            "volume named:blobs",
            "volume opened:blobs",
            "volume folder:/data/blobs/volume",
            "volume created:machine-log+new",
            "volume formatted:machine-log+new",
            "volume finished:machine-log+new",
            "volume named:machine-log",
            "volume opened:machine-log",
            "journals set aside",
        )
        for moment in ("before", "after")
    ]


@pytest.mark.parametrize(("name", "point"), POINTS)
def test_the_power_is_cut_at_every_fault_point(name: str, point: str) -> None:
    scene = SCENES[name]
    wanted = scene.on(scene.host().power_cut())
    wanted.settled(*scene.services)
    host = scene.host()

    def cutting(heard: str) -> None:
        if heard == point:
            raise Killed

    with pytest.raises(Killed):
        whole(scene.on(host).manager(*scene.services, watch=cutting))
    booted = scene.on(host.power_cut())
    booted.settled(*scene.services)
    assert booted.host.state == wanted.host.state


def test_what_outlives_a_power_cut_has_a_fault_point() -> None:
    """A step that changes what persists and has none fails here."""
    for scene in SCENES.values():
        host = scene.host()
        perform = performing(host)

        def noting(
            step: Step[object],
            host: MemoryHost = host,
            perform: Callable[[Step[object]], object] = perform,
        ) -> object:
            before = host.persistent
            answer = perform(step)
            assert host.persistent == before or step.point, step
            return answer

        whole(scene.on(host).manager(*scene.services, perform=noting))
