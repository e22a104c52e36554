from __future__ import annotations

import stat
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from machineos.document.between.handover import Handover, Service
from machineos.document.product.install import Mount, Network, Port
from machineos.host.kernel import mount
from machineos.service.act.manager import Manager
from machineos.service.act.surroundings import Folders
from machineos.state.volumes.service import FolderStorage
from unit.service.conftest import Machine, PlainVolumes, ProcessUnits, Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from machineos.document.between.status import ServiceStatus
    from machineos.service.plan.network import Forward

pytestmark = [
    pytest.mark.system,
    pytest.mark.tool("lxc-start"),
    pytest.mark.tool("mksquashfs"),
    pytest.mark.tool("busybox"),
]
NONE = Network(type="none")


@dataclass
class Host:
    """A manager with everything real but systemd and dm-verity."""

    base: Path
    store: Store
    units: ProcessUnits
    volumes: PlainVolumes = field(default_factory=PlainVolumes)
    forwards: list[Forward] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    @property
    def folders(self) -> Folders:
        return Folders(run=self.base / "run", units=self.units.folder)

    def manager(self, *services: Service) -> Manager:
        document = Handover(
            version=1,
            generation="0" * 64,
            product="default",
            store=str(self.store.folder),
            data=str(self.base / "data"),
            data_device="/dev/vda4",
            services=services,
        )

        def forward(forwards: object) -> None:
            self.forwards = list(forwards)  # type: ignore[call-overload]

        return Manager(
            document,
            store=self.store.folder,
            folders=self.folders,
            volumes=self.volumes,
            storage=FolderStorage(self.base / "data"),
            units=self.units,
            forward=forward,
            log=self.lines.append,
        )

    def output(self, service: str) -> str:
        return (self.units.log / f"machineos-{service}.service").read_text()

    def wait_output(self, service: str, text: str) -> str:
        deadline = time.monotonic() + 10
        while text not in self.output(service):
            assert time.monotonic() < deadline, (self.output(service), self.lines)
            time.sleep(0.02)
        return self.output(service)

    def mounts(self) -> list[mount.Mount]:
        return [m for m in mount.mounts() if m.target.is_relative_to(self.base)]


@pytest.fixture
def host(store: Store) -> Iterator[Host]:
    # Not below pytest's own folder, which only root can enter: containers have to.
    with tempfile.TemporaryDirectory(prefix="machineos-test-") as name:
        base = Path(name)
        base.chmod(0o711)
        (base / "units").mkdir()
        (base / "log").mkdir()
        result = Host(base, store, ProcessUnits(base / "units", base / "log"))
        try:
            yield result
            result.manager().reconcile()
            assert result.mounts() == []
            assert result.volumes.devices == {}
            assert list((base / "units").iterdir()) == []
        finally:
            result.units.stop(list(result.units.processes))
            for left in reversed(result.mounts()):
                mount.unmount(left.target, lazy=True)


def service(name: str, built: tuple[str, str, object], **changes: object) -> Service:
    image, config, layer = built
    base = Service(
        name=name,
        version="1.0.0",
        type="container",
        image=image,
        config=config,
        layer=layer,  # type: ignore[arg-type]
        network=NONE,
        nsgroup="web",
        hostid=165536,
    )
    return msgspec.structs.replace(base, **changes)


def shell(script: str, **config: object) -> dict[str, object]:
    return {"Entrypoint": ["/bin/sh", "-c", script], **config}


def only(manager: Manager) -> ServiceStatus:
    (status,) = manager.status()
    return status


def test_container_is_confined_and_keeps_its_words(
    host: Host, store: Store, busybox_tree: Path
) -> None:
    script = (
        'id -u; id -g; echo cwd=$PWD; echo E="$E"; echo N="$N"; for a in "$@"; do echo "<$a>";'
        " done; cat /proc/self/status; cat /proc/self/uid_map; cat /proc/mounts;"
        " touch /data/written && echo volume-ok; touch /etc/x 2>&1; touch /tmp/x && echo tmp-ok;"
        " unshare -r /bin/id 2>&1; echo error >&2; echo end; exec sleep 60"
    )
    words = ["sh", "a b", "", "q\"u'o te", "$HOME %n ; \\x", "new\nline", "tab\there", "é"]
    config = {
        "Entrypoint": ["/bin/sh", "-c", script],
        "Cmd": words,
        "Env": ["E= \"x' ", "N=1\n2"],
        "User": "app:web",
        "WorkingDir": "/etc",
    }
    built = store.add(busybox_tree, config)
    manager = host.manager(service("web", built, storage=(Mount(dest="/data", label="blobs"),)))
    manager.reconcile()
    assert only(manager).state == "running", (only(manager), host.lines)
    text = host.wait_output("web", "\nend\n")
    lines = text.splitlines()
    assert lines[:3] == ["1000", "33", "cwd=/etc"]
    assert "E= \"x' \n" in text
    assert "N=1\n2\n" in text
    assert "".join(f"<{word}>\n" for word in words[1:]) in text
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert {fields[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {"0" * 16}
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    assert "         0     165536      65536" in text
    assert " / squashfs ro,nosuid,nodev" in text
    assert "volume-ok" in text
    assert "tmp-ok" in text
    assert "/etc/x: Read-only file system" in text
    assert "unshare(0x10000000): Operation not permitted" in text
    assert "error\n" in text
    written = host.base / "data/blobs/written"
    assert (written.stat().st_uid, written.stat().st_gid) == (166536, 165569)
    assert stat.S_IMODE(written.parent.stat().st_mode) == 0o700


def test_root_process_has_few_capabilities(host: Host, store: Store, busybox_tree: Path) -> None:
    built = store.add(busybox_tree, shell("cat /proc/self/status; echo end; exec sleep 60"))
    host.manager(service("web", built)).reconcile()
    text = host.wait_output("web", "\nend\n")
    # chown dac_override fowner fsetid kill setgid setuid net_bind_service
    expected = sum(1 << bit for bit in (0, 1, 3, 4, 5, 6, 7, 10))
    assert f"CapEff:\t{expected:016x}" in text


def test_a_service_in_the_network_of_the_host(host: Host, store: Store, busybox_tree: Path) -> None:
    script = "readlink /proc/self/ns/net; ls /sys; touch /run/x && echo end; exec sleep 60"
    built = store.add(busybox_tree, shell(script))
    manager = host.manager(
        service("own", built, network=Network(type="host")),
        service("bare", built, network=Network(type="host"), nsgroup="", hostid=0),
        service("apart", built),
    )
    manager.reconcile()
    ours = str(Path("/proc/self/ns/net").readlink())
    own, bare, apart = (host.wait_output(name, "end\n") for name in ("own", "bare", "apart"))
    assert own == f"{ours}\nend\n"  # no sysfs: only the owner of the network may mount it
    assert bare.startswith(f"{ours}\n")
    assert "kernel" in bare
    assert ours not in apart
    assert "kernel" in apart


def test_two_groups_share_no_id_and_no_copy_is_made(
    host: Host, store: Store, busybox_tree: Path
) -> None:
    built = store.add(busybox_tree, shell("exec sleep 60"))
    manager = host.manager(
        service("one", built, nsgroup="one", hostid=100000),
        service("two", built, nsgroup="two", hostid=165536),
        service("bare", built, nsgroup="none", hostid=0),
    )
    manager.reconcile()
    assert [item.state for item in manager.status()] == ["running"] * 3
    roots = [host.folders.roots / name for name in ("one", "two", "bare")]
    assert [(root / "etc/passwd").stat().st_uid for root in roots] == [100000, 165536, 0]
    assert len({(root / "etc/passwd").stat().st_dev for root in roots}) == 1
    assert len({(root / "etc/passwd").stat().st_ino for root in roots}) == 1
    bare = manager.status()[2]
    assert any("host's user ids" in note for note in bare.notes)


def test_a_new_manager_starts_nothing_twice(host: Host, store: Store, busybox_tree: Path) -> None:
    built = store.add(busybox_tree, shell("exec sleep 60"))
    one = service("one", built)
    host.manager(one).reconcile()
    before = (host.units.processes["machineos-one.service"].pid, host.mounts())
    manager = host.manager(one)
    manager.reconcile()
    assert host.units.started == ["machineos-one.service"]
    assert (host.units.processes["machineos-one.service"].pid, host.mounts()) == before
    assert only(manager).state == "running"


def test_every_interrupted_reconcile_is_finished_by_the_next(
    host: Host, store: Store, busybox_tree: Path
) -> None:
    """Leave out the log's nth line by dying there; the next manager must get to the same end."""
    built = store.add(busybox_tree, shell("exec sleep 60"))
    one = service("one", built)

    class Killed(BaseException):
        pass

    for step in range(3):
        manager = host.manager(one)
        lines: list[str] = []

        def log(text: str, lines: list[str] = lines, step: int = step) -> None:
            if len(lines) == step:
                raise Killed
            lines.append(text)

        manager._log = log
        with pytest.raises(Killed):
            manager.reconcile()
        host.manager(one).reconcile()
        assert len(host.mounts()) == 2
        assert only_running(host, one)
        host.manager().reconcile()
        assert host.mounts() == []


def only_running(host: Host, wanted: Service) -> bool:
    manager = host.manager(wanted)
    manager.reconcile()
    return only(manager).state == "running"


def test_a_changed_service_is_started_anew_and_a_dropped_one_goes(
    host: Host, store: Store, busybox_tree: Path
) -> None:
    old = store.add(busybox_tree, shell("echo old; exec sleep 60"))
    (busybox_tree / "etc/new").write_text("new")
    new = store.add(busybox_tree, shell("echo new; exec sleep 60"))
    host.manager(service("one", old), service("gone", old)).reconcile()
    host.wait_output("one", "old")
    host.manager(service("one", new)).reconcile()
    host.wait_output("one", "new")
    assert set(host.units.processes) == {"machineos-one.service"}
    assert (host.folders.roots / "one/etc/new").is_file()
    assert not (host.folders.roots / "gone").exists()
    assert len(host.volumes.devices) == 1


def test_one_bad_service_does_not_stop_the_others(
    host: Host, store: Store, busybox_tree: Path
) -> None:
    good = store.add(busybox_tree, shell("exec sleep 60"))
    empty = store.add(busybox_tree, {})
    lost = store.add(busybox_tree, {"Entrypoint": ["/bin/true"]})
    (store.blobs / lost[0].partition(":")[2]).write_bytes(b"{}")
    crash = store.add(busybox_tree, {"Entrypoint": ["/bin/absent"]})
    nobody = store.add(busybox_tree, shell("exec sleep 60", User="nobody"))
    manager = host.manager(
        service("empty", empty),
        service("flipped", lost),
        service("crash", crash),
        service("nobody", nobody),
        service("good", good),
    )
    manager.reconcile()
    deadline = time.monotonic() + 5
    while any(item.name == "crash" and item.state == "running" for item in manager.status()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    found = {item.name: item for item in manager.status()}
    assert found["good"].state == "running"
    assert found["empty"].state == "refused"
    assert "nothing to run" in found["empty"].why
    assert "digest is" in found["flipped"].why
    assert found["crash"].state == "failed"
    assert "not a user and group" in found["nobody"].why


@pytest.mark.parametrize("path", ["proc", "dev", "sys", "data", "tmp", "etc"])
def test_a_link_where_something_is_mounted_is_refused(
    host: Host, store: Store, busybox_tree: Path, path: str
) -> None:
    (busybox_tree / "elsewhere").mkdir()
    target = busybox_tree / path
    target.rename(busybox_tree / f"{path}.old")
    target.symlink_to("/elsewhere")
    built = store.add(busybox_tree, shell("exec sleep 60"))
    wanted = service("web", built, storage=(Mount(dest="/data", label="blobs"),))
    manager = host.manager(wanted)
    manager.reconcile()
    status = only(manager)
    assert status.state == "refused"
    assert f"/{path} is a symbolic link" in status.why
    assert wanted.image in status.why
    assert host.units.started == []
    assert not (host.base / "data/blobs").exists()


def test_other_bytes_than_handed_over_are_refused(
    host: Host, store: Store, busybox_tree: Path
) -> None:
    built = store.add(busybox_tree, shell("exec sleep 60"))
    other = store.add(busybox_tree, shell("exec sleep 61"))
    layer = msgspec.structs.replace(built[2], root_hash="1" * 64)
    manager = host.manager(
        service("config", (built[0], other[1], built[2])),
        service("layer", (built[0], built[1], layer)),
    )
    manager.reconcile()
    whys = [item.why for item in manager.status()]
    assert "configuration is" in whys[0]
    assert "not the one handed over" in whys[1]
    assert host.mounts() == []


@pytest.mark.tool("nft")
@pytest.mark.tool("ip")
def test_a_forwarded_port_answers_from_outside_and_from_the_host(
    host: Host, store: Store, busybox_tree: Path, machine: Machine
) -> None:
    """LXC, its default route and the table together; the predecessor's images needed ip."""
    (busybox_tree / "data/index.html").write_text("hello")
    built = store.add(
        busybox_tree, {"Entrypoint": ["/bin/httpd", "-f", "-p", "5000", "-h", "/data"]}
    )
    host.units.prefix = machine.inside(machine.host)
    network = Network(type="simple", ports=(Port(host=80, container=5000),))
    manager = host.manager(service("web", built, network=network))
    manager.reconcile()
    code = (
        "from machineos.host.unit import nft; from machineos.service.plan.network import *\n"
        "from machineos.daemon.adapters import Forwarding\n"
        "from pathlib import Path; import sys\n"
        "from ipaddress import ip_address as a\n"
        "Forwarding(proc=Path('/proc'), sys=Path('/sys'))"
        "([Forward('web', 'tcp', 80, 5000, a(sys.argv[1]), a(sys.argv[2]))])"
    )
    (forward,) = host.forwards
    machine.python(machine.host, code, str(forward.ipv4), str(forward.ipv6))
    fetch = (
        "import sys, time, urllib.request\n"
        "for i in range(50):\n"
        "    try: print(urllib.request.urlopen(sys.argv[1], timeout=2).read().decode()); break\n"
        "    except OSError as e: err = e; time.sleep(.1)\n"
        "else: raise err\n"
    )
    for space, url in (
        (machine.outside, "http://192.0.2.1/"),
        (machine.outside, "http://[2001:db8::1]/"),
        (machine.host, "http://127.0.0.1/"),
        (machine.host, "http://192.0.2.1/"),
    ):
        assert machine.python(space, fetch, url).text == "hello", url
    assert only(manager).addresses == ("10.0.3.3", "fd6d:6f73:3000:3::3")
