"""The contract of ``service.plan.host.Host``: checks that every host has to pass.

Plain functions without a test framework, because they also run where there is none: in a container
with a systemd of its own, and on the appliance. Each makes what it needs and leaves nothing behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from contracts.place import PASSWD, refuses
from machineos.core.digest import Digest
from machineos.core.idrange import IdRange
from machineos.document.model.image import Sight
from machineos.document.model.names import Label, Unfinished
from machineos.errors import ConflictError, DocumentError, MachineOSError, MissingError, ToolError
from machineos.host.kernel.flags import Flag
from machineos.host.unit.unitfile import exec_line
from machineos.service.plan.host import Around, Persistent
from waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from contracts.place import Place
    from machineos.host.unit.systemctl import UnitState
    from machineos.service.plan.host import Host

IDS = IdRange(165536, 65536)
READ_ONLY = Flag.RDONLY | Flag.NOSUID | Flag.NODEV
UNIT = "machineos-contract.service"
MIB = 1 << 20


def check_a_line_is_said(place: Place) -> None:
    place.host.say("one line")
    assert place.lines[-1] == "one line"


def check_journals_are_set_aside(place: Place) -> None:
    host, folder = place.host, place.folders.run / "journal"
    machine = folder / "0123"
    host.make_folder(machine, 0o755)
    kept = ("system@1-2.journal", "system@3-4.journal~", "other")
    for name in (*kept, "system.journal"):
        host.write_file(machine / name, name.encode(), 0o640)
    for _ in range(2):
        host.set_journals_aside(folder)
        assert [host.read_file(machine / name, 100) for name in kept] == [*map(str.encode, kept)]
        assert host.read_file(machine / "system.journal", 100) is None
    for path in place.names(machine):
        host.remove_file(path)
    host.remove_folder(machine)
    host.remove_folder(folder)


def check_what_is_around(place: Place) -> None:
    host, folders = place.host, place.folders
    make_folders(place)
    assert host.look(folders) == Around()
    host.write_file(folders.units / "b.service", b"b", 0o644)
    host.write_file(folders.units / "a.service", b"a", 0o644)
    host.make_folder(folders.roots / "web", 0o755)
    host.make_folder(folders.lxc / "home", 0o755)
    host.make_folder(folders.images / "123", 0o755)
    host.write_file(folders.leases, b"leases", 0o644)
    found = host.look(folders)
    assert found == Around(
        units=("a.service", "b.service"),
        homes=("home",),
        roots=("web",),
        images=("123",),
        leases=b"leases",
    )
    for name in ("a.service", "b.service"):
        host.remove_file(folders.units / name)
    host.remove_folder(folders.roots / "web")
    host.remove_folder(folders.lxc / "home")
    host.remove_folder(folders.images / "123")
    host.remove_file(folders.leases)


def check_a_blob_is_read_up_to_its_limit(place: Place) -> None:
    host = place.host
    digest = place.put_blob(b"four")
    assert host.read_blob(digest, 4) == b"four"
    refuses(DocumentError, lambda: host.read_blob(digest, 3), "larger than 3 bytes")
    assert host.read_blob(Digest("sha256", "0" * 64), 4) is None


def check_a_file_is_written_read_and_removed(place: Place) -> None:
    host, path = place.host, place.folders.run / "file"
    host.make_folder(path.parent, 0o755)
    assert host.read_file(path, 10) is None
    host.remove_file(path)
    for data, mode in ((b"first", 0o600), (b"second", 0o644), (b"second", 0o644)):
        host.write_file(path, data, mode)
        assert host.read_file(path, len(data)) == data
        assert place.mode(path) == mode
    refuses(DocumentError, lambda: host.read_file(path, 5), "larger than 5 bytes")
    host.remove_file(path)
    host.remove_file(path)
    assert host.read_file(path, 10) is None


def check_a_folder_has_exactly_its_mode(place: Place) -> None:
    host, path = place.host, place.folders.run / "deep/folder"
    for mode in (0o711, 0o700, 0o700, 0o755):
        host.make_folder(path, mode)
        assert place.mode(path) == mode
    host.write_file(path / "file", b"", 0o600)
    host.remove_folder(path)
    assert host.read_file(path / "file", 1) == b""
    host.remove_file(path / "file")
    host.remove_folder(path)
    host.remove_folder(path)
    host.remove_folder(path.parent)


def check_a_mount_has_its_options_once(place: Place) -> None:
    host, target = place.host, place.folders.run / "memory"
    refuses(MissingError, lambda: host.mount("tmpfs", target, "tmpfs", Flag.NONE, ""))
    host.make_folder(target, 0o755)
    assert host.mounted(target) is None
    host.unmount(target)
    for _ in range(2):
        host.mount("tmpfs", target, "tmpfs", Flag.NOSUID | Flag.NODEV, "size=1m,mode=0711")
        (options,) = place.options(target)
        assert options & {"ro", "nosuid", "nodev", "noexec"} == {"nosuid", "nodev"}
        assert place.kind(target) == "tmpfs"
    first = host.mounted(target)
    assert first is not None
    assert first.uid == 0
    assert host.mounted(target) == first
    for _ in range(2):
        host.unmount(target)
        assert host.mounted(target) is None
    refuses(ToolError, lambda: host.mount("none", target, "nosuchfs", Flag.NONE, ""))
    host.remove_folder(target)


def check_a_layer_is_mounted_and_shown_with_other_owners(place: Place) -> None:
    host, folders = place.host, place.folders
    image, own, bare = folders.images / "i", folders.roots / "own", folders.roots / "bare"
    for path in (image, own, bare):
        host.make_folder(path, 0o755)
    mount_layer(place, image)
    (options,) = place.options(image)
    assert options & {"ro", "nosuid", "nodev"} == {"ro", "nosuid", "nodev"}
    seen = host.mounted(image)
    assert seen is not None
    for _ in range(2):
        host.clone(image, own, IDS)
        host.clone(image, bare, None)
    shifted, plain = host.mounted(own), host.mounted(bare)
    assert shifted is not None
    assert plain is not None
    assert (shifted.device, plain.device) == (seen.device, seen.device)
    assert (seen.uid, shifted.uid, plain.uid) == (0, IDS.first, 0)
    for path in (own, bare):
        (options,) = place.options(path)
        assert options & {"ro", "nosuid", "nodev"} == {"ro", "nosuid", "nodev"}
    for path in (own, bare, image):
        host.unmount(path)
        host.remove_folder(path)
    for _ in range(2):
        host.close_layer(place.layer.digest)


def check_nothing_is_seen_through_a_link(place: Place) -> None:
    host, image = place.host, place.folders.images / "i"
    host.make_folder(image, 0o755)
    mount_layer(place, image)
    folders = {
        "/proc": Sight(),
        "/absent": Sight("/absent does not exist", absent=True),
        "/etc/absent/below": Sight("/etc/absent does not exist", absent=True),
        "/etc/passwd": Sight("/etc/passwd is not a folder"),
        "/etc/passwd/below": Sight("/etc/passwd is not a folder"),
        "/away": Sight("/away is a symbolic link"),
        "/away/etc": Sight("/away is a symbolic link"),
        "/etc/..": Sight("'/etc/..' is no path inside an image"),
        "etc": Sight("'etc' is no path inside an image"),
        "/a\0b": Sight("'/a\\x00b' is no path inside an image"),
    }
    files = {
        "/etc/passwd": Sight(data=PASSWD),
        "/etc/full": Sight(data=b"x" * MIB),
        "/etc/absent": Sight("/etc/absent does not exist", absent=True),
        "/absent/file": Sight("/absent does not exist", absent=True),
        "/etc/there": Sight("/etc/there is a symbolic link"),
        "/etc/fifo": Sight("/etc/fifo is not a regular file"),
        "/etc": Sight("/etc is not a regular file"),
        "/etc/big": Sight("/etc/big is larger than 1048576 bytes"),
        "/away/etc/passwd": Sight("/away/etc/passwd is not read: /away is a symbolic link"),
        "/etc/../etc/passwd": Sight("'/etc/../etc/passwd' is no path inside an image"),
    }
    found = host.look_inside(image, tuple(folders), tuple(files))
    assert found.folders == tuple(folders.items()), found.folders
    assert found.files == tuple(files.items()), [
        (path, sight.problem, len(sight.data)) for path, sight in found.files
    ]
    host.unmount(image)
    host.remove_folder(image)
    host.close_layer(place.layer.digest)


def check_a_volume_from_nothing_to_its_folder(place: Place) -> None:
    host, folders = place.host, place.folders
    before = host.volumes()
    assert Persistent("contract") not in before
    label, unfinished = Label("contract"), Unfinished("contract+new")
    assert not host.volume_device(label)
    for _ in range(2):
        host.create_volume(unfinished, 8 * MIB)
    assert set(host.volumes()) == {*before, Persistent("contract+new", unfinished=True)}
    for _ in range(2):
        host.format_volume(unfinished, label)
    for _ in range(2):
        host.finish_volume(unfinished)
    assert set(host.volumes()) == {*before, Persistent("contract+new")}
    for _ in range(2):
        host.rename_volume(unfinished, label)
    assert set(host.volumes()) == {*before, Persistent("contract")}
    assert not host.volume_device(label)
    for _ in range(2):
        host.open_volume(label)
    assert host.volume_device(label)
    refuses(MissingError, lambda: host.open_volume(Label("no-such")), "no-such: its volume is not")
    target = folders.data / "contract"
    own = target / "volume"
    mount_volume(place, target)
    assert place.kind(target) == "ext4"
    for uid in (1234, 5678):
        host.own_folder(own, uid, 99)
        assert (place.owner(own), place.mode(own)) == ((1234, 99), 0o700)
    host.unmount(target)
    mount_volume(place, target)
    assert place.owner(own) == (1234, 99)
    host.write_file(target / "file", b"", 0o600)
    refuses(ConflictError, lambda: host.own_folder(target / "file", 1, 1), "is not a folder")
    host.remove_file(target / "file")
    host.unmount(target)
    host.remove_folder(target)
    for _ in range(2):
        host.remove_volume(label)
    assert host.volumes() == before
    assert host.log_size() > 0


def check_the_network_of_services(place: Place) -> None:
    host = place.host
    addresses = ("10.99.3.1/24", "fd6d:6f73:99::1/64")
    for _ in range(2):
        host.make_bridge("contract0", addresses)
        assert place.addresses("contract0") == set(addresses)
    script = "add table inet contract\ndelete table inet contract\ntable inet contract {\n}\n"
    for _ in range(2):
        host.apply_rules(script)
        assert "table inet contract" in place.rules()
    before = place.rules()
    refuses(ToolError, lambda: host.apply_rules("delete table inet contract\nnonsense\n"))
    assert place.rules() == before
    name = "ipv4/conf/contract0/route_localnet"
    for value in (True, True, False, False):
        host.switch(name, value, False)
        assert place.switch(name) == str(int(value))
    refuses(MissingError, lambda: host.switch("ipv4/no_such", True, False), "does not exist")
    host.switch("ipv4/no_such", True, True)


def check_a_new_link_is_as_it_is_said_of_new_links(place: Place) -> None:
    host = place.host
    assert "lo" in host.links()
    for number, value in enumerate((True, False)):
        host.switch("ipv4/conf/default/forwarding", value, False)
        host.make_bridge(f"new{number}", ())
    assert {"lo", "new0", "new1"} <= set(host.links())
    assert list(host.links()) == sorted(host.links())
    assert place.switch("ipv4/conf/new0/forwarding") == "1"
    assert place.switch("ipv4/conf/new1/forwarding") == "0"


def check_a_unit_runs_once(place: Place) -> None:
    host = place.host
    write_unit(place, "/usr/bin/sleep", "1000")
    assert (unit(host).load, unit(host).active, unit(host).main_pid) == ("loaded", "inactive", 0)
    host.start_units((UNIT,))
    wait_for(lambda: unit(host).active == "active", what="the unit runs")
    first = unit(host)
    assert first.main_pid > 0
    assert (first.restarts, first.stale, first.name) == (0, False, UNIT)
    host.start_units((UNIT,))
    assert unit(host) == first
    for _ in range(2):
        host.stop_units((UNIT,))
        assert unit(host).active == "inactive"
    forget_unit(place)


def check_a_unit_that_is_not_there(place: Place) -> None:
    host = place.host
    host.make_folder(place.folders.units, 0o755)
    state = unit(host)
    assert (state.name, state.load, state.active) == (UNIT, "not-found", "inactive")
    refuses(ToolError, lambda: host.stop_units((UNIT,)))
    refuses(ToolError, lambda: host.start_units((UNIT,)))
    refuses(ToolError, lambda: host.run_unit(UNIT))
    host.reset_failed((UNIT,))


def check_a_changed_unit_is_read_again(place: Place) -> None:
    host = place.host
    write_unit(place, "/usr/bin/sleep", "1000")
    host.start_units((UNIT,))
    wait_for(lambda: unit(host).active == "active", what="the unit runs")
    write_unit(place, "/usr/bin/sleep", "2000")
    assert unit(host).stale
    for _ in range(2):
        host.reload_units()
        assert not unit(host).stale
    assert unit(host).active == "active"
    host.stop_units((UNIT,))
    forget_unit(place)


def check_a_unit_that_fails_may_start_again(place: Place) -> None:
    host = place.host
    write_unit(place, "/usr/bin/false")
    host.start_units((UNIT,))
    wait_for(lambda: unit(host).active == "failed", what="the unit has failed")
    state = unit(host)
    assert (state.exit_status, state.result, state.main_pid) == (1, "exit-code", 0)
    host.stop_units((UNIT,))
    assert unit(host).active == "failed"  # that it failed is not forgotten with its end
    for _ in range(2):
        host.reset_failed((UNIT,))
        assert unit(host).active == "inactive"
    write_unit(place, "/usr/bin/true")
    host.reload_units()
    host.run_unit(UNIT)
    wait_for(lambda: unit(host).active == "inactive", what="the unit has ended")
    forget_unit(place)


FILES = (
    check_a_line_is_said,
    check_journals_are_set_aside,
    check_what_is_around,
    check_a_blob_is_read_up_to_its_limit,
    check_a_file_is_written_read_and_removed,
    check_a_folder_has_exactly_its_mode,
)
MOUNTS = (
    check_a_mount_has_its_options_once,
    check_a_layer_is_mounted_and_shown_with_other_owners,
    check_nothing_is_seen_through_a_link,
    check_a_volume_from_nothing_to_its_folder,
)
NETWORK = (check_the_network_of_services,)
UNITS = (
    check_a_unit_runs_once,
    check_a_unit_that_is_not_there,
    check_a_changed_unit_is_read_again,
    check_a_unit_that_fails_may_start_again,
)
CONTRACT = (*FILES, *MOUNTS, *NETWORK, *UNITS)


def make_folders(place: Place) -> None:
    """Make the folders that a host is given."""
    folders = place.folders
    for path in (folders.units, folders.lxc, folders.roots, folders.images):
        place.host.make_folder(path, 0o755)


def mount_layer(place: Place, target: Path) -> None:
    """Open the layer and mount it, twice over."""
    for _ in range(2):
        device = place.host.open_layer(place.layer, place.blob, place.signature)
        place.host.mount(str(device), target, "squashfs", READ_ONLY, "")


def mount_volume(place: Place, target: Path) -> None:
    """Mount the volume of the contract."""
    place.host.make_folder(target, 0o711)
    source = place.folders.mapper / Label("contract").mapped
    place.host.mount(str(source), target, "ext4", Flag.NOSUID | Flag.NODEV, "")


def unit(host: Host) -> UnitState:
    """Return what systemd says of the unit of the contract."""
    (state,) = host.show_units((UNIT,))
    return state


def write_unit(place: Place, *argv: str) -> None:
    """Write the unit of the contract."""
    place.host.make_folder(place.folders.units, 0o755)
    lines = ("[Unit]", "DefaultDependencies=no", "[Service]", "Type=exec",
             f"ExecStart={exec_line(argv)}", "Environment=PATH=/usr/bin", "")  # fmt: skip
    place.host.write_file(place.folders.units / UNIT, "\n".join(lines).encode(), 0o644)


def forget_unit(place: Place) -> None:
    """Take the unit of the contract away."""
    place.host.remove_file(place.folders.units / UNIT)
    place.host.reload_units()
    assert unit(place.host).load == "not-found"


def run(place: Place, checks: tuple[Callable[[Place], None], ...]) -> list[str]:
    """Run ``checks`` and return what failed, for where there is no test framework."""
    failed = []
    for check in checks:
        try:
            check(place)
        except (AssertionError, MachineOSError, OSError) as error:
            failed.append(f"{check.__name__}: {type(error).__name__}: {error}")
    return failed
