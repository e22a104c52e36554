"""What the manager makes of a hand-over, on a machine in memory."""

from __future__ import annotations

import msgspec
import pytest

from contracts.place import FOLDER
from fakes.service import Disk
from machineos.core.idrange import IdRange
from machineos.core.steps import Step
from machineos.document.between.handover import Volume
from machineos.document.model.install import Mount, Network, Port
from machineos.errors import ToolError
from machineos.host.kernel.flags import Flag
from machineos.service.act.manager import performing
from machineos.service.plan import steps
from unit.service.bed import FOLDERS, TREE, Bed

WEB = "machineos-web.service"
SIMPLE = Network(type="simple")


def port(host: int) -> Network:
    return Network(type="simple", ports=(Port(host=host, container=5000),))


@pytest.fixture
def bed() -> Bed:
    return Bed()


def test_the_first_boot_from_nothing_to_running(bed: Bed) -> None:
    service = bed.service("web", storage=(Mount(dest="/data", label="blobs"),))
    layer = service.layer.digest.removeprefix("sha256:")
    manager = bed.run(service)
    host = bed.host
    assert (
        host.lines
        == [
            f"web: mounted {service.layer.digest}",
            "web: ready (1.0)",
            "starting web",
        ]
        or host.lines[-1] == f"starting {WEB}"
    )
    assert manager.problems == ()
    image = host.mounts[FOLDERS.images / layer]
    root = host.mounts[FOLDERS.roots / "web"]
    assert (image.kind, image.flags) == ("squashfs", Flag.RDONLY | Flag.NOSUID | Flag.NODEV)
    assert (image.source, image.uid) == (f"/dev/layer/{layer}", 0)
    assert (root.device, root.uid) == (image.device, 165536)
    volume = host.mounts[FOLDERS.data / "blobs"]
    assert (volume.source, volume.kind) == ("/dev/mapper/machine-volume-blobs", "ext4")
    assert volume.flags == Flag.NOSUID | Flag.NODEV | Flag.NOEXEC
    assert host.group["blobs"].size == 30 << 20
    assert host.group["blobs"].label == "blobs"
    assert host.group["blobs"].owners == {"volume": (165536, 165536)}
    assert host.known[WEB].active == "active"
    assert {path.name: mode for path, (_, mode) in host.files.items()} == {
        "config": 0o600,
        "seccomp": 0o600,
        WEB: 0o644,
    }
    assert host.made[FOLDERS.units] == 0o755
    assert host.made[FOLDERS.run] == 0o755
    assert host.made[FOLDERS.roots] == 0o711
    assert host.made[FOLDERS.images] == 0o700
    assert host.made[FOLDERS.lxc] == 0o711
    assert host.made[FOLDERS.lxc / "web"] == 0o700
    assert host.made[FOLDERS.data] == host.made[FOLDERS.data / "blobs"] == 0o711
    status = bed.status(manager)["web"]
    assert (status.state, status.unit, status.pid) == ("running", WEB, host.known[WEB].pid)


def test_a_refused_service_that_still_runs_is_stopped(bed: Bed) -> None:
    """It must not go on with old rules: network, volumes, image may all be forbidden now."""
    good = bed.service("web", network=port(80))
    other = bed.service("other", network=port(81))
    bed.run(good, other)
    assert bed.host.known[WEB].active == "active"
    manager = bed.run(msgspec.structs.replace(good, config=other.image), other)
    assert WEB not in bed.host.known
    assert FOLDERS.units / WEB not in bed.host.files
    assert FOLDERS.roots / "web" not in bed.host.mounts
    assert FOLDERS.lxc / "web" not in bed.host.made
    assert "dport 80 " not in bed.host.tables[0]
    assert "dport 81 " in bed.host.tables[0]
    found = bed.status(manager)
    assert found["web"].state == "refused"
    assert found["web"].why.startswith("image of web: the image's configuration is ")
    assert (found["web"].unit, found["web"].pid) == ("", 0)
    assert found["other"].state == "running"
    assert manager.problems == ()
    assert "web: stopped and removed" in bed.host.lines
    assert manager.units == ("machineos-other.service",)


def test_a_service_whose_network_is_refused_is_stopped_before_anything_of_it_is_read(
    bed: Bed,
) -> None:
    bed.run(bed.service("web", network=port(80)))
    taken: list[Step[object]] = []
    perform = performing(bed.host)

    def noting(step: Step[object]) -> object:
        taken.append(step)
        return perform(step)

    manager = bed.manager(
        bed.service("first", network=port(80)), bed.service("web", network=port(80)), perform=noting
    )
    manager.reconcile()
    assert WEB not in bed.host.known
    assert bed.status(manager)["web"].why == (
        "service web: network.ports[0].host: tcp port 80 of the host is taken by first"
    )
    assert len([step for step in taken if isinstance(step, steps.ReadBlob)]) == 2


def test_a_service_that_cannot_even_be_stopped_is_a_problem(bed: Bed) -> None:
    bed.run(bed.service("web"))
    perform = performing(bed.host)

    def stuck(step: Step[object]) -> object:
        if isinstance(step, steps.StopUnits):
            raise ToolError("systemctl stop: no end")
        return perform(step)

    broken = bed.service("web", bed.image({}))
    manager = bed.manager(broken, bed.service("good"), perform=stuck)
    manager.reconcile()
    assert manager.problems == ("stopping web: systemctl stop: no end",)
    assert "stopping web: failed: systemctl stop: no end" in bed.host.lines
    assert bed.status(manager)["web"].state == "refused"
    assert bed.status(manager)["good"].state == "running"


def test_each_service_is_refused_alone_with_its_reason(bed: Bed) -> None:
    lost = bed.service("lost")
    del bed.host.blobs[bed.put(b"")]
    bad = {
        "empty": bed.service("empty", bed.image({})),
        "nobody": bed.service("nobody", bed.image({"Cmd": ["x"], "User": "nobody"})),
        "label": bed.service("label", storage=(Mount(dest="/data", label="nowhere"),)),
        "link": bed.service("link", bed.image(None, {**TREE, "/dev": ("link", "/")})),
        "absent": msgspec.structs.replace(lost, name="absent", image="sha256:" + "0" * 64),
        "zero": msgspec.structs.replace(
            lost, name="zero", storage=(Mount(dest="/a\0b", label="blobs"),)
        ),
    }
    manager = bed.run(*bad.values(), bed.service("good"))
    found = bed.status(manager)
    assert {name: one.state for name, one in found.items()} == {
        **dict.fromkeys(bad, "refused"),
        "good": "running",
    }
    assert "nothing to run" in found["empty"].why
    assert "not a user and group" in found["nobody"].why
    assert found["label"].why == "storage nowhere is not defined by any manifest"
    assert "/dev is a symbolic link" in found["link"].why
    assert "is not in the store" in found["absent"].why
    assert "is no path inside an image" in found["zero"].why
    assert bed.host.started == ["machineos-good.service"]
    for name, one in found.items():
        if name in bad:
            assert f"{name}: refused: {one.why}" in bed.host.lines


@pytest.mark.parametrize("error", [ToolError("no"), OSError("no"), ValueError("no")])
def test_whatever_a_host_raises_refuses_one_service(bed: Bed, error: Exception) -> None:
    perform = performing(bed.host)

    def failing(step: Step[object]) -> object:
        if isinstance(step, steps.Clone) and step.target.name == "web":
            raise error
        return perform(step)

    manager = bed.manager(bed.service("web"), bed.service("good"), perform=failing)
    manager.reconcile()
    found = bed.status(manager)
    assert (found["web"].state, found["web"].why) == ("refused", "no")
    assert found["good"].state == "running"


def test_an_error_of_ours_is_not_taken_for_a_refusal(bed: Bed) -> None:
    with pytest.raises(TypeError, match="object is no step of a service"):
        performing(bed.host)(object())  # type: ignore[arg-type]


def test_one_part_that_fails_leaves_the_others(bed: Bed) -> None:
    bed.run(bed.service("old"), bed.service("older"))
    perform = performing(bed.host)

    def failing(step: Step[object]) -> object:
        if isinstance(step, steps.ApplyRules):
            raise ToolError("nft: no")
        if isinstance(step, steps.Unmount) and step.path.name == "old":
            raise ToolError("busy")
        return perform(step)

    other = bed.service("other", network=port(80))
    manager = bed.manager(bed.service("web"), other, perform=failing)
    manager.reconcile()
    # What nothing would keep apart finds no bridge to meet on.
    assert bed.host.bridges == {}
    assert manager.problems == (
        "removing what is no longer wanted: busy",
        "forwarding ports: nft: no",
    )
    assert "forwarding ports: failed: nft: no" in bed.host.lines
    assert bed.host.known[WEB].active == "active"
    assert FOLDERS.roots / "older" not in bed.host.mounts
    manager = bed.run(bed.service("web"))
    assert manager.problems == ()
    assert FOLDERS.roots / "old" not in bed.host.mounts


def test_a_start_that_fails_is_a_problem(bed: Bed) -> None:
    perform = performing(bed.host)

    def failing(step: Step[object]) -> object:
        if isinstance(step, steps.StartUnits):
            raise ToolError("systemctl start: no")
        return perform(step)

    manager = bed.manager(bed.service("web"), perform=failing)
    manager.reconcile()
    assert manager.problems == ("starting services: systemctl start: no",)
    assert bed.status(manager)["web"].state == "stopped"


def test_without_our_own_folders_there_is_nothing_to_report_to(bed: Bed) -> None:
    def failing(step: Step[object]) -> object:
        raise OSError("read-only")

    with pytest.raises(OSError, match="read-only"):
        bed.manager(bed.service("web"), perform=failing).reconcile()


def test_services_with_one_layer_share_its_mount(bed: Bed) -> None:
    built = bed.image()
    bed.run(
        bed.service("one", built, nsgroup="one", hostid=100000),
        bed.service("two", built, nsgroup="two", hostid=165536),
        bed.service("bare", built, nsgroup="none", hostid=0),
    )
    roots = {name: bed.host.mounts[FOLDERS.roots / name] for name in ("one", "two", "bare")}
    assert len({root.device for root in roots.values()}) == 1
    assert {name: root.uid for name, root in roots.items()} == {
        "one": 100000,
        "two": 165536,
        "bare": 0,
    }
    assert len(bed.host.layers) == 1
    assert bed.host.lines.count(f"one: mounted {built[2].digest}") == 1
    assert not [line for line in bed.host.lines if line.startswith("two: mounted")]


def test_a_service_that_is_only_mounted_has_no_unit(bed: Bed) -> None:
    manager = bed.run(bed.service("files", type="fs-only"))
    assert FOLDERS.roots / "files" in bed.host.mounts
    assert bed.host.files == {}
    assert bed.host.started == []
    found = bed.status(manager)["files"]
    assert (found.state, found.unit, found.why) == ("mounted", "", "")
    assert "files: ready (1.0)" in bed.host.lines


def test_addresses_stay_when_one_goes_and_when_one_comes(bed: Bed) -> None:
    built = bed.image()

    def run(*names: str) -> dict[str, tuple[str, ...]]:
        manager = bed.run(*(bed.service(name, built, network=SIMPLE) for name in names))
        return {name: one.addresses for name, one in bed.status(manager).items()}

    first = run("a", "b", "c")
    started = list(bed.host.started)
    second = run("a", "c")
    assert second == {name: first[name] for name in ("a", "c")}
    third = run("new", "c", "a")
    assert (third["a"], third["c"]) == (first["a"], first["c"])
    assert third["new"] != first["b"]
    # Nobody was started anew for it.
    assert bed.host.started == [*started, "machineos-new.service"]
    assert run("b", "c", "a", "new")["b"] == first["b"]
    assert bed.host.files[FOLDERS.leases][1] == 0o644


def test_leases_that_cannot_be_read_are_a_problem_and_are_written_anew(bed: Bed) -> None:
    web = bed.service("web", network=SIMPLE)
    manager = bed.run(web)
    before = bed.status(manager)["web"].addresses
    good = bed.host.files[FOLDERS.leases]
    bed.host.files[FOLDERS.leases] = (b"{}", 0o644)
    manager = bed.run(web)
    (problem,) = manager.problems
    assert problem.startswith("addresses are chosen anew: leases: ")
    assert bed.status(manager)["web"].addresses == before
    assert bed.host.files[FOLDERS.leases] == good
    assert bed.run(web).problems == ()


def test_a_unit_that_had_failed_stays_so_until_its_service_changes(bed: Bed) -> None:
    """systemd gave it its chances."""
    bed.run(bed.service("web"))
    bed.host.fail(WEB)
    manager = bed.run(bed.service("web"))
    assert bed.host.started == [WEB]
    assert bed.status(manager)["web"].state == "failed"
    manager = bed.run(bed.service("web", bed.image({"Cmd": ["/bin/other"]})))
    assert bed.host.started == [WEB, WEB]
    assert bed.status(manager)["web"].state == "running"
    assert "/bin/other" in bed.host.ran[WEB]


def test_a_unit_that_has_ended_is_started_again(bed: Bed) -> None:
    bed.run(bed.service("web"))
    bed.host.end(WEB)
    bed.run(bed.service("web"))
    assert bed.host.started == [WEB, WEB]


def test_a_volume_that_is_there_is_used_as_it_is(bed: Bed) -> None:
    web = bed.service("web", storage=(Mount(dest="/data", label="blobs"),))
    bed.run(web)
    disk = bed.host.group["blobs"]
    disk.owners["volume"] = (7, 7)  # files of somebody who was there before
    booted = Bed(bed.host.power_cut())
    booted.run(web)
    assert booted.host.group["blobs"] is disk
    assert disk.owners == {"volume": (7, 7)}
    assert booted.host.mounts[FOLDERS.data / "blobs"].disk is disk


def test_a_volume_in_memory_has_its_size(bed: Bed) -> None:
    user = bed.image({"Cmd": ["/bin/x"], "User": "app:web"})
    bed.run(bed.service("web", user, storage=(Mount(dest="/data", label="memory"),)))
    mounted = bed.host.mounts[FOLDERS.data / "memory"]
    data = "size=5m,nr_inodes=1280,mode=0711"
    assert (mounted.kind, mounted.source, mounted.data) == ("tmpfs", "tmpfs", data)
    assert mounted.flags == Flag.NOSUID | Flag.NODEV | Flag.NOEXEC
    assert mounted.disk is not None
    assert mounted.disk.owners == {"volume": (166536, 165569)}
    assert bed.host.group == {}


def test_host_ids_own_the_volume_of_a_service_without_a_group(bed: Bed) -> None:
    user = bed.image({"Cmd": ["/bin/x"], "User": "app"})
    storage = (Mount(dest="/data", label="memory"),)
    bed.run(bed.service("web", user, storage=storage, nsgroup="", hostid=0))
    mounted = bed.host.mounts[FOLDERS.data / "memory"]
    assert mounted.disk is not None
    assert mounted.disk.owners == {"volume": (1000, 1001)}


def test_a_volume_that_lvm_has_and_that_is_not_open_is_refused(bed: Bed) -> None:
    """Something is wrong there: nothing is made in its place."""
    perform = performing(bed.host)

    def hiding(step: Step[object]) -> object:
        return False if isinstance(step, steps.SeeVolume) else perform(step)

    bed.host.group["blobs"] = Disk(30 << 20)
    web = bed.service("web", storage=(Mount(dest="/data", label="blobs"),))
    manager = bed.manager(web, perform=hiding)
    manager.reconcile()
    assert bed.status(manager)["web"].why == ("storage blobs: its volume is not open")
    assert list(bed.host.group) == ["blobs"]


def test_the_label_of_a_file_system_has_16_characters(bed: Bed) -> None:
    bed.volumes = (Volume("a" * 17, persistent=True, size=1),)
    bed.run(bed.service("web", storage=(Mount(dest="/data", label="a" * 17),)))
    assert bed.host.group["a" * 17].label == "a" * 16


def test_a_layer_that_nobody_signed_is_not_mounted(bed: Bed) -> None:
    service = bed.service("web")
    bed.host.unsigned.add(service.layer.digest.removeprefix("sha256:"))
    manager = bed.run(service)
    assert "refuses the signature" in bed.status(manager)["web"].why
    assert bed.host.mounts == {}


def test_a_service_in_other_ids_is_shown_anew(bed: Bed) -> None:
    built = bed.image()
    bed.run(bed.service("web", built))
    bed.run(bed.service("web", built, nsgroup="x", hostid=300000))
    assert bed.host.mounts[FOLDERS.roots / "web"].uid == IdRange(300000, 65536).host(0)
    assert bed.host.started == [WEB, WEB]
    assert "u 0 300000 65536" in bed.host.files[FOLDERS.units / WEB][0].decode()


def test_the_resolver_of_the_host_is_shown_where_there_is_a_file_for_it(bed: Bed) -> None:
    trees = {
        "plain": TREE,
        "none": {name: what for name, what in TREE.items() if name != "/etc/resolv.conf"},
        "link": {**TREE, "/etc/resolv.conf": ("link", "/run/x")},
        "folder": {**TREE, "/etc/resolv.conf": FOLDER},
    }
    bed.run(
        *(
            bed.service(name, bed.image(None, tree), network=Network(type="host"))
            for name, tree in trees.items()
        ),
        bed.service("alone", bed.image()),
    )
    shown = {
        name: "/run/resolv.conf etc/resolv.conf" in bed.host.files[path / "config"][0].decode()
        for name in (*trees, "alone")
        for path in (FOLDERS.lxc / name,)
    }
    assert shown == {"plain": True, "none": False, "link": False, "folder": False, "alone": False}
