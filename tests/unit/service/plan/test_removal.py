"""What is taken away, in which order, and what is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from machineos.core.digest import Digest
from machineos.core.serviceid import ServiceId
from machineos.service.plan import removal, steps
from machineos.service.plan.facts import World
from machineos.service.plan.host import Around
from unit.service.bed import FOLDERS, POLICY, Bed

BED = Bed()
BUILT = BED.image()
WEB = ServiceId("web")
ONE, TWO = Digest("sha256", "1" * 64), Digest("sha512", "2" * 128)
UNIT = "machineos-web.service"
FILES = (
    steps.RemoveFile(Path("/run/machineos/lxc/web/config")),
    steps.RemoveFile(Path("/run/machineos/lxc/web/seccomp")),
    steps.RemoveFolder(Path("/run/machineos/lxc/web")),
    steps.Unmount(Path("/run/machineos/roots/web")),
    steps.RemoveFolder(Path("/run/machineos/roots/web")),
)
STOPPING = (
    steps.StopUnits((UNIT,)),
    steps.RemoveFile(Path("/run/systemd/system") / UNIT),
    steps.ReloadUnits(),
    steps.Say("web: stopped and removed"),
)


def world(around: Around, *names: str, **changes: object) -> World:
    services = (BED.service(name, BUILT, **changes) for name in names)
    return World(BED.handover(*services), POLICY, around=around)


@pytest.mark.parametrize(("unit", "expected"), [(True, (*STOPPING, *FILES)), (False, FILES)])
def test_a_service_stops_before_anything_of_it_goes(unit: bool, expected: object) -> None:
    assert removal.of_service(FOLDERS, WEB, unit=unit) == expected
    around = Around(units=(UNIT,) if unit else ("machineos-other.service",))
    assert removal.RemoveService(WEB).plan(world(around)) == expected


def test_an_image_is_unmounted_before_its_device_goes() -> None:
    expected = (
        steps.Unmount(FOLDERS.images / ("1" * 64)),
        steps.CloseLayer(ONE),
        steps.RemoveFolder(FOLDERS.images / ("1" * 64)),
        steps.Say(f"unmounted the image {'1' * 64}"),
    )
    assert removal.of_image(FOLDERS, ONE) == expected
    assert removal.RemoveImage(ONE).plan(world(Around())) == expected


def test_what_is_wanted_stays() -> None:
    layer = BUILT[2].digest.removeprefix("sha256:")
    around = Around(units=(UNIT,), homes=("web",), roots=("web", "files"), images=(layer,))
    assert removal.leftovers(world(around, "web", "files")) == ()


@pytest.mark.parametrize(
    ("around", "expected"),
    [
        (Around(units=(UNIT,)), [removal.RemoveService(WEB)]),
        (Around(homes=("web",)), [removal.RemoveService(WEB)]),
        (Around(roots=("web",)), [removal.RemoveService(WEB)]),
        (Around(units=(UNIT,), homes=("web",), roots=("web",)), [removal.RemoveService(WEB)]),
        (Around(images=(TWO.hex, ONE.hex)), [removal.RemoveImage(TWO), removal.RemoveImage(ONE)]),
        (
            Around(
                units=("ssh.service", "machineos-.service"), roots=("X", ".x"), images=("123", "x")
            ),
            [],
        ),
        (
            Around(units=(UNIT,), roots=("a",), images=(ONE.hex,)),
            [
                removal.RemoveService(ServiceId("a")),
                removal.RemoveService(WEB),
                removal.RemoveImage(ONE),
            ],
        ),
    ],
)
def test_what_nobody_wants_goes(around: Around, expected: list[object]) -> None:
    assert list(removal.leftovers(world(around, "other"))) == expected


def test_a_container_that_is_only_mounted_now_loses_its_unit_and_files() -> None:
    for around in (Around(units=(UNIT,)), Around(homes=("web",))):
        found = removal.leftovers(world(around, "web", type="fs-only"))
        assert found == (removal.RemoveService(WEB),)
    assert removal.leftovers(world(Around(roots=("web",)), "web", type="fs-only")) == ()
