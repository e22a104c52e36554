"""The phases of one service: their order, and what each decides."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from fakes.service import MemoryHost
from machineos.core.digest import Digest
from machineos.core.steps import Runner, Step, check_order
from machineos.document.between.handover import Layer, Service
from machineos.document.model.install import Mount, Network
from machineos.document.model.names import Label
from machineos.errors import MachineOSError, OrderError
from machineos.service.act.manager import performing
from machineos.service.plan import service, steps
from machineos.service.plan.facts import Progress, TextFile, known
from machineos.service.plan.network import Attachment
from unit.service.bed import FOLDERS, POLICY, Bed
from unit.service.plan.cases import SIMPLE

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = {phase.name: phase for phase in service.PHASES}
UNIT = "machineos-web.service"
HOME = FOLDERS.lxc / "web"


@pytest.fixture
def bed() -> Bed:
    return Bed()


def begin(bed: Bed, item: Service, **changes: object) -> Progress:
    progress = Progress(
        service=item, handover=bed.handover(item), policy=bed.policy, network=Attachment("none")
    )
    return replace(progress, **changes)


def run(bed: Bed, item: Service, **changes: object) -> tuple[Progress, list[Step[object]]]:
    """Run all phases; return what is known then and the steps that were taken."""
    found: list[Step[object]] = []
    perform = performing(bed.host)

    def noting(step: Step[object]) -> object:
        found.append(step)
        return perform(step)

    runner: Runner[Progress] = Runner(noting)
    return runner.run(service.PHASES, begin(bed, item, **changes)), found


def kinds(found: list[Step[object]]) -> list[str]:
    return [type(step).__name__ for step in found]


def prepared(bed: Bed) -> None:
    """Our folders are there, which the machine's own phases make."""
    for path in (FOLDERS.units, FOLDERS.run, FOLDERS.roots, FOLDERS.images, FOLDERS.lxc):
        bed.host.make_folder(path, 0o755)


def test_the_order_of_the_phases() -> None:
    assert [(phase.name, sorted(phase.needs), sorted(phase.gives)) for phase in service.PHASES] == [
        ("check the image manifest", [], ["manifest"]),
        ("check the image configuration", ["manifest"], ["documents"]),
        ("see the image", ["documents"], ["image seen"]),
        ("open the layer", ["documents", "image seen"], ["device"]),
        ("mount the image", ["device"], ["image"]),
        ("see the root", ["image"], ["root seen"]),
        ("show the root", ["image", "root seen"], ["root"]),
        ("look inside the image", ["image"], ["inside"]),
        ("see the volumes", ["inside"], ["volumes seen"]),
        ("see the devices of volumes", ["volumes seen"], ["volume devices"]),
        ("list the volumes", ["volume devices"], ["volume names"]),
        ("make the volumes", ["inside", "volume devices", "volume names"], ["volumes"]),
        ("see the files", ["inside", "root", "volumes"], ["files seen"]),
        ("write the files", ["files seen"], ["files"]),
        ("say that it is ready", ["files", "root"], ["ready"]),
    ]
    check_order(service.PHASES)


@pytest.mark.parametrize("name", [name for name, phase in NAMES.items() if phase.needs])
def test_no_phase_can_come_first(name: str) -> None:
    wrong = (NAMES[name], *(phase for phase in service.PHASES if phase.name != name))
    with pytest.raises(OrderError, match=f"phase {name} comes before what it needs"):
        check_order(wrong)


def test_the_first_run_takes_these_steps(bed: Bed) -> None:
    prepared(bed)
    item = bed.service("web", storage=(Mount(dest="/data", label="blobs"),))
    progress, found = run(bed, item)
    assert kinds(found) == [
        "ReadBlob", "ReadBlob", "SeeMount", "OpenLayer", "MakeFolder", "Mount", "Say", "SeeMount",
        "SeeMount", "ReadFile", "MakeFolder", "Clone", "LookInside", "SeeMount", "SeeVolume",
        "ListVolumes", "CreateVolume", "FormatVolume", "FinishVolume", "RenameVolume",
        "OpenVolume",
        "MakeFolder", "MakeFolder", "Mount", "OwnFolder", "ReadFile", "ReadFile", "ReadFile",
        "MakeFolder", "WriteFile", "WriteFile", "WriteFile", "Say",
    ]  # fmt: skip
    assert (progress.fresh, progress.changed, progress.why) == (True, True, "")
    opened = next(step for step in found if isinstance(step, steps.OpenLayer))
    assert (opened.blob, opened.signature) == (Path(item.layer.blob), Path(item.layer.signature))
    assert opened.layer.root_hash == item.layer.root_hash
    cloned = next(step for step in found if isinstance(step, steps.Clone))
    assert cloned == steps.Clone(
        FOLDERS.images / opened.layer.digest.hex, FOLDERS.roots / "web", item.ids
    )
    made = [step for step in found if isinstance(step, steps.MakeFolder)]
    assert made[:2] == [
        steps.MakeFolder(cloned.source, 0o755),
        steps.MakeFolder(cloned.target, 0o755),
    ]
    assert made[-1] == steps.MakeFolder(HOME, 0o700)
    read = [step for step in found if isinstance(step, steps.ReadBlob)]
    assert [(str(step.digest), step.limit) for step in read] == [
        (item.image, 4 << 20),
        (item.config, 1 << 20),
    ]
    assert {step.limit for step in found if isinstance(step, steps.ReadFile)} == {4 << 20}


def test_a_run_that_finds_everything_changes_nothing(bed: Bed) -> None:
    prepared(bed)
    item = bed.service("web", storage=(Mount(dest="/data", label="blobs"),))
    run(bed, item)
    before = bed.host.state
    progress, found = run(bed, item)
    assert kinds(found) == [
        "ReadBlob", "ReadBlob", "SeeMount", "SeeMount", "SeeMount", "ReadFile", "LookInside",
        "SeeMount", "OwnFolder", "ReadFile", "ReadFile", "ReadFile", "Say",
    ]  # fmt: skip
    assert (progress.fresh, progress.changed) == (False, False)
    assert bed.host.state == before


def test_what_is_only_mounted_is_not_looked_into(bed: Bed) -> None:
    prepared(bed)
    progress, found = run(bed, bed.service("files", bed.image({}), type="fs-only"))
    assert kinds(found) == [
        "ReadBlob", "ReadBlob", "SeeMount", "OpenLayer", "MakeFolder", "Mount", "Say", "SeeMount",
        "SeeMount", "ReadFile", "MakeFolder", "Clone", "Say",
    ]  # fmt: skip
    assert progress.spec is None
    assert (progress.fresh, progress.changed, progress.notes) == (False, False, ())


def refused(bed: Bed, item: Service) -> tuple[str, list[str]]:
    """Return why a service is refused, and what was done before."""
    found: list[Step[object]] = []
    perform = performing(bed.host)

    def noting(step: Step[object]) -> object:
        found.append(step)
        return perform(step)

    runner: Runner[Progress] = Runner(noting)
    with pytest.raises(MachineOSError) as caught:
        runner.run(service.PHASES, begin(bed, item))
    return str(caught.value), kinds(found)


def wrong_bytes(bed: Bed, item: Service) -> Service:
    bed.host.blobs[Digest.parse(item.image)] = b"{}"
    return item


def no_configuration(bed: Bed, item: Service) -> Service:
    del bed.host.blobs[Digest.parse(item.config)]
    return item


def wrong_configuration(bed: Bed, item: Service) -> Service:
    bed.host.blobs[Digest.parse(item.config)] = b"{}"
    return item


def another_layer(bed: Bed, item: Service) -> Service:
    return replace(item, layer=replace(item.layer, root_hash="1" * 64))


@pytest.mark.parametrize(
    ("change", "words", "count"),
    [
        (wrong_bytes, "image of web: digest is ", 1),
        (no_configuration, "configuration of the image of web: sha256:", 2),
        (wrong_configuration, "configuration of the image of web: digest is ", 2),
        (another_layer, "image of web: the image's layer is not the one handed over", 1),
    ],
)
def test_nothing_is_opened_before_the_documents_are_checked(
    bed: Bed, change: Callable[[Bed, Service], Service], words: str, count: int
) -> None:
    prepared(bed)
    why, found = refused(bed, change(bed, bed.service("web")))
    assert why.startswith(words), why
    assert found == ["ReadBlob"] * count


def test_no_volume_is_made_for_an_image_that_cannot_run(bed: Bed) -> None:
    prepared(bed)
    tree = {**bed.host.trees[Digest.parse(bed.image()[2].digest).hex], "/sys": b""}
    storage = (Mount(dest="/data", label="blobs"),)
    why, found = refused(bed, bed.service("web", bed.image(None, tree), storage=storage))
    assert why.endswith("nothing can be mounted at /sys: /sys is not a folder")
    assert why.startswith("image web (sha256:")
    assert found[-1] == "LookInside"
    assert bed.host.group == {}


@pytest.mark.parametrize("ids", [{"nsgroup": "none", "hostid": 0}, {"hostid": 300000}])
def test_another_root_makes_way_with_the_service_in_it(bed: Bed, ids: dict[str, object]) -> None:
    prepared(bed)
    built = bed.image()
    run(bed, bed.service("web", built))
    bed.host.start_units((UNIT,))
    progress, found = run(bed, bed.service("web", built, **ids))
    away = [
        "StopUnits", "RemoveFile", "ReloadUnits", "Say", "RemoveFile", "RemoveFile",
        "RemoveFolder", "Unmount", "RemoveFolder", "MakeFolder", "Clone",
    ]  # fmt: skip
    start = kinds(found).index("StopUnits")
    assert kinds(found)[start : start + len(away)] == away
    assert (progress.fresh, progress.changed) == (True, True)


def test_a_root_without_a_unit_makes_way_without_stopping(bed: Bed) -> None:
    prepared(bed)
    built = bed.image()
    run(bed, bed.service("files", built, type="fs-only"))
    _, found = run(bed, bed.service("files", built, type="fs-only", hostid=300000))
    assert "StopUnits" not in kinds(found)
    assert "Clone" in kinds(found)


def test_a_changed_service_is_stopped_and_its_failures_forgotten(bed: Bed) -> None:
    prepared(bed)
    run(bed, bed.service("web"))
    item = bed.service("web", bed.image({"Entrypoint": ["/bin/other"]}))
    progress, found = run(bed, item)
    start = kinds(found).index("StopUnits")
    # The command stands in the unit alone.
    assert found[start : start + 3] == [
        steps.StopUnits((UNIT,)),
        steps.ResetFailed((UNIT,)),
        steps.MakeFolder(HOME, 0o700),
    ]
    assert [step.path.name for step in found if isinstance(step, steps.WriteFile)] == [UNIT]
    assert (progress.fresh, progress.changed) == (False, True)


@pytest.mark.parametrize("name", ["config", "seccomp", UNIT])
def test_a_service_whose_files_are_not_all_there_does_not_run(bed: Bed, name: str) -> None:
    prepared(bed)
    run(bed, bed.service("web"))
    path = FOLDERS.units / UNIT if name == UNIT else HOME / name
    bed.host.remove_file(path)
    progress, found = run(bed, bed.service("web"))
    assert "StopUnits" not in kinds(found)
    written = [step for step in found if isinstance(step, steps.WriteFile)]
    assert [step.path for step in written] == [path]
    assert written[0].mode == (0o644 if name == UNIT else 0o600)
    assert (progress.fresh, progress.changed) == (name == UNIT, True)


def test_the_unit_is_written_last(bed: Bed) -> None:
    prepared(bed)
    _, found = run(bed, bed.service("web"))
    names = [step.path.name for step in found if isinstance(step, steps.WriteFile)]
    assert names == ["config", "seccomp", UNIT]


def test_the_container_is_what_image_and_handover_say(bed: Bed) -> None:
    prepared(bed)
    config = {
        "Entrypoint": ["/bin/x"],
        "Cmd": ["a"],
        "Env": ["A=1"],
        "User": "app:web",
        "WorkingDir": "/srv",
        "StopSignal": "SIGQUIT",
    }
    item = bed.service(
        "web", bed.image(config), version="2", storage=(Mount(dest="/tmp/x", label="memory"),)
    )
    progress, _ = run(bed, item, network=SIMPLE, policy=replace(POLICY, apparmor="profile"))
    spec = known(progress.spec)
    assert (spec.id, spec.version, spec.rootfs) == (item.id, "2", FOLDERS.roots / "web")
    assert (spec.argv, spec.env) == (("/bin/x", "a"), (("A", "1"),))
    assert (spec.user.uid, spec.user.gid, spec.user.home) == (1000, 33, "/data")
    assert (spec.folder, spec.stop_signal, spec.ids) == ("/srv", "SIGQUIT", item.ids)
    assert (spec.network, spec.apparmor) == (SIMPLE, "profile")
    assert [(str(one.source), one.dest) for one in spec.volumes] == [
        ("/data/memory/volume", "/tmp/x")
    ]
    assert spec.scratch == ("/tmp",)
    assert spec.resolv_conf == Path("/run/resolv.conf")


def test_no_network_no_resolver(bed: Bed) -> None:
    prepared(bed)
    for network, shown in ((Attachment("none"), False), (Attachment("host"), True)):
        progress, _ = run(bed, bed.service("web", network=Network(type="none")), network=network)
        assert (known(progress.spec).resolv_conf is not None) is shown


@pytest.mark.parametrize(
    ("changes", "apparmor", "notes"),
    [
        ({}, "profile", ()),
        ({}, "unconfined", ("no AppArmor profile for containers is loaded",)),
        (
            {"nsgroup": "", "hostid": 0},
            "profile",
            ("runs with the host's user ids: give it an nsgroup",),
        ),
        (
            {"nsgroup": "none", "hostid": 0},
            "unconfined",
            (
                "runs with the host's user ids: give it an nsgroup",
                "no AppArmor profile for containers is loaded",
            ),
        ),
    ],
)
def test_what_a_person_should_know(
    bed: Bed, changes: dict[str, object], apparmor: str, notes: tuple[str, ...]
) -> None:
    prepared(bed)
    policy = replace(POLICY, apparmor=apparmor)
    progress, _ = run(bed, bed.service("web", None, **changes), policy=policy)
    assert progress.notes == notes


def test_the_same_volume_twice_is_one_volume(bed: Bed) -> None:
    prepared(bed)
    storage = (Mount(dest="/data", label="blobs"), Mount(dest="/tmp/x", label="blobs"))
    progress, found = run(bed, bed.service("web", storage=storage))
    assert kinds(found).count("CreateVolume") == 1
    assert [one.dest for one in known(progress.spec).volumes] == ["/data", "/tmp/x"]


def test_lvm_is_asked_only_for_what_has_no_mount(bed: Bed) -> None:
    """It takes seconds, and at boot it is still at work."""
    prepared(bed)
    _, found = run(bed, bed.service("web", storage=(Mount(dest="/data", label="memory"),)))
    assert not {"SeeVolume", "ListVolumes"} & set(kinds(found))
    storage = (Mount(dest="/data", label="blobs"), Mount(dest="/tmp/m", label="memory"))
    run(bed, bed.service("one", storage=storage))
    _, found = run(bed, bed.service("two", storage=storage))
    assert not {"SeeVolume", "ListVolumes"} & set(kinds(found))
    booted = replace_host(bed)
    _, found = run(booted, bed.service("one", storage=storage))
    assert [step for step in found if isinstance(step, steps.SeeVolume)] == [
        steps.SeeVolume(Label("blobs"))
    ]
    assert "ListVolumes" not in kinds(found)


def replace_host(bed: Bed) -> Bed:
    booted = Bed(bed.host.power_cut())
    prepared(booted)
    return booted


def test_files_of_a_service() -> None:
    file = TextFile(Path("/x"), b"new", 0o600)
    assert file.stale
    assert replace(file, before=b"old").stale
    assert not replace(file, before=b"new").stale
    assert replace(file, data=b"", before=None).stale


def test_a_refused_service_is_nothing_else() -> None:
    bed = Bed()
    prepared(bed)
    progress, _ = run(bed, bed.service("web"))
    assert progress.spec is not None
    assert progress.refused("why").spec is None
    assert progress.refused("why").why == "why"


def test_a_fact_is_not_used_before_it_is_known(bed: Bed) -> None:
    with pytest.raises(OrderError) as caught:
        NAMES["mount the image"].plan(begin(bed, bed.service("web")))
    assert str(caught.value) == "a fact is used before it is known"
    assert known(0) == 0


def test_a_store_may_be_anywhere(bed: Bed) -> None:
    item = bed.service("web")
    item = replace(item, layer=Layer(item.layer.digest, item.layer.root_hash, "/b", "/s"))
    prepared(bed)
    _, found = run(bed, item)
    opened = next(step for step in found if isinstance(step, steps.OpenLayer))
    assert (opened.blob, opened.signature) == (Path("/b"), Path("/s"))


def test_the_fake_is_the_one_of_the_contract(bed: Bed) -> None:
    assert isinstance(bed.host, MemoryHost)
