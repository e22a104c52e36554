"""Services as real containers: everything is real but systemd, LVM and dm-verity."""

from __future__ import annotations

import socket
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from machineos.core.run import run
from machineos.document.model.install import Mount, Network, Port
from machineos.service.plan.network import Wanted, plan_network
from unit.service.bed import service_of as service
from unit.service.system.conftest import mounts_below
from unit.service.system.containers import shell
from waiting import PATIENCE, wait_for

if TYPE_CHECKING:
    from unit.service.system.containers import Bed
    from unit.service.system.machine import Machine
    from unit.service.system.store import Store

pytestmark = [
    pytest.mark.system,
    pytest.mark.tool("lxc-start"),
    pytest.mark.tool("mksquashfs"),
    pytest.mark.tool("mkfs.ext4"),
    pytest.mark.tool("busybox"),
]


def test_container_is_confined_and_keeps_its_words(
    bed: Bed, store: Store, busybox_tree: Path
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
    manager = bed.manager(service("web", built, storage=(Mount(dest="/data", label="blobs"),)))
    manager.reconcile()
    assert bed.only(manager).state == "running", (bed.only(manager), bed.lines)
    text = bed.wait_output("web", "\nend\n")
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
    assert " /tmp tmpfs rw,nosuid,nodev" in text
    (scratch,) = [line for line in lines if line.startswith("tmpfs /tmp ")]
    assert {"size=65536k", "nr_inodes=16384"} <= {*scratch.split()[3].split(",")}
    assert " /data ext4 rw,nosuid,nodev,noexec" in text  # LXC would drop it from a bind mount
    assert "volume-ok" in text
    assert "tmp-ok" in text
    assert "/etc/x: Read-only file system" in text
    assert "unshare(0x10000000): Operation not permitted" in text
    assert "error\n" in text
    written = bed.folders.data / "blobs/volume/written"
    assert (written.stat().st_uid, written.stat().st_gid) == (166536, 165569)
    assert stat.S_IMODE(written.parent.stat().st_mode) == 0o700


@pytest.mark.attack(
    "image",
    "a carriage return and every other control character in Env, to write settings of LXC",
    "literal text in the container",
)
def test_no_character_of_an_environment_is_a_setting(
    bed: Bed, store: Store, busybox_tree: Path
) -> None:
    """What lxc-start makes of each character at which a line could end, and of blanks around it."""
    values = {
        f"C{number}": f"{space}x{chr(number)}lxc.no_new_privs = 0{chr(number)}"
        f"lxc.idmap ={chr(number)}lxc.cap.keep ={chr(number)}lxc.environment = EVIL=1{space}"
        for number in (*range(1, 0x21), 0x22, 0x23, 0x24, 0x25, 0x27, 0x5C, 0x7F, 0x85, 0x2028)
        for space in ("", chr(number), " ")
        if (space == "") == (number % 2 == 0)
    }
    script = "cat /proc/self/environ /proc/self/uid_map /proc/self/status; echo end; exec sleep 60"
    built = store.add(
        busybox_tree, shell(script, Env=[f"{key}={value}" for key, value in values.items()])
    )
    manager = bed.manager(service("web", built))
    manager.reconcile()
    assert bed.only(manager).state == "running", (bed.only(manager), bed.lines)
    bed.wait_output("web", "\nend\n")
    data = (bed.units.log / "machineos-web.service").read_bytes().decode()
    given, _, rest = data.rpartition("\0")
    found = dict(pair.split("=", 1) for pair in given.split("\0"))
    assert {key: found.get(key) for key in values} == values
    assert "EVIL" not in found
    assert rest.startswith("         0     165536      65536\n")
    assert "NoNewPrivs:\t1\n" in rest


def test_root_process_has_few_capabilities(bed: Bed, store: Store, busybox_tree: Path) -> None:
    built = store.add(busybox_tree, shell("cat /proc/self/status; echo end; exec sleep 60"))
    bed.manager(service("web", built)).reconcile()
    text = bed.wait_output("web", "\nend\n")
    # chown dac_override fowner fsetid kill setgid setuid net_bind_service
    expected = sum(1 << bit for bit in (0, 1, 3, 4, 5, 6, 7, 10))
    assert f"CapEff:\t{expected:016x}" in text


def test_a_service_in_the_network_of_the_host(bed: Bed, store: Store, busybox_tree: Path) -> None:
    script = "readlink /proc/self/ns/net; ls /sys; touch /run/x && echo end; exec sleep 60"
    built = store.add(busybox_tree, shell(script))
    manager = bed.manager(
        service("own", built, network=Network(type="host")),
        service("bare", built, network=Network(type="host"), nsgroup="", hostid=0),
        service("apart", built),
    )
    manager.reconcile()
    ours = str(Path("/proc/thread-self/ns/net").readlink())
    own, apart = (bed.wait_output(name, "end\n") for name in ("own", "apart"))
    assert own == f"{ours}\nend\n"  # no sysfs: only the owner of the network may mount it
    assert ours not in apart
    assert "kernel" in apart
    (bare,) = (one for one in bed.status(manager) if one.name == "bare")
    assert (bare.state, bare.why) == (
        "refused",
        "service bare: nsgroup: a container in the network of the host needs an nsgroup",
    )


@pytest.mark.attack(
    "service",
    "binds a low port of the host, as root of a service in its network",
    "EACCES",
)
def test_a_low_port_of_the_host_is_not_for_a_service(
    own_network: None, bed: Bed, store: Store, busybox_tree: Path
) -> None:
    """Its capability is one of its own user namespace, to which the network of the host does not
    belong. In a network of its own it binds the port, and so does the host in this one."""
    script = (
        "for port in 80 8080; do httpd -p $port -h /data 2>&1 && echo bound $port; done;"
        " grep CapEff /proc/self/status; echo end; exec sleep 60"
    )
    built = store.add(busybox_tree, shell(script))
    bed.manager(
        service("own", built, network=Network(type="host")), service("apart", built)
    ).reconcile()
    own, apart = (bed.wait_output(name, "end\n").splitlines() for name in ("own", "apart"))
    assert own[0].endswith("bind: Permission denied")
    assert own[1] == "bound 8080"
    assert apart[:2] == ["bound 80", "bound 8080"]
    assert own[2] == apart[2]  # the same capabilities
    assert int(own[2].split()[1], 16) & 1 << 10  # CAP_NET_BIND_SERVICE
    with socket.socket() as low:
        low.bind(("0.0.0.0", 80))


def test_two_groups_share_no_id_and_no_copy_is_made(
    bed: Bed, store: Store, busybox_tree: Path
) -> None:
    built = store.add(busybox_tree, shell("exec sleep 60"))
    manager = bed.manager(
        service("one", built, nsgroup="one", hostid=100000),
        service("two", built, nsgroup="two", hostid=165536),
        service("bare", built, nsgroup="none", hostid=0),
    )
    manager.reconcile()
    assert [item.state for item in bed.status(manager)] == ["running"] * 3
    roots = [bed.folders.roots / name for name in ("one", "two", "bare")]
    assert [(root / "etc/passwd").stat().st_uid for root in roots] == [100000, 165536, 0]
    assert len({(root / "etc/passwd").stat().st_dev for root in roots}) == 1
    assert len({(root / "etc/passwd").stat().st_ino for root in roots}) == 1


def test_a_new_manager_starts_nothing_twice(bed: Bed, store: Store, busybox_tree: Path) -> None:
    built = store.add(busybox_tree, shell("exec sleep 60"))
    one = service("one", built, storage=(Mount(dest="/data", label="memory"),))
    bed.manager(one).reconcile()
    before = (bed.units.processes["machineos-one.service"].pid, mounts_below(bed.base))
    manager = bed.manager(one)
    manager.reconcile()
    assert bed.units.started == ["machineos-one.service"]
    assert (bed.units.processes["machineos-one.service"].pid, mounts_below(bed.base)) == before
    assert bed.only(manager).state == "running"


def test_a_changed_service_is_started_anew_and_a_dropped_one_goes(
    bed: Bed, store: Store, busybox_tree: Path
) -> None:
    old = store.add(busybox_tree, shell("echo old; exec sleep 60"))
    (busybox_tree / "etc/new").write_text("new")
    new = store.add(busybox_tree, shell("echo new; exec sleep 60"))
    bed.manager(service("one", old), service("gone", old)).reconcile()
    bed.wait_output("one", "old")
    bed.manager(service("one", new)).reconcile()
    bed.wait_output("one", "new")
    assert set(bed.units.processes) == {"machineos-one.service"}
    assert (bed.folders.roots / "one/etc/new").is_file()
    assert not (bed.folders.roots / "gone").exists()
    assert len(bed.layers.devices) == 1


def test_one_bad_service_does_not_stop_the_others(
    bed: Bed, store: Store, busybox_tree: Path
) -> None:
    good = store.add(busybox_tree, shell("exec sleep 60"))
    empty = store.add(busybox_tree, {})
    crash = store.add(busybox_tree, {"Entrypoint": ["/bin/absent"]})
    manager = bed.manager(service("empty", empty), service("crash", crash), service("good", good))
    manager.reconcile()
    wait_for(lambda: bed.status(manager)[1].state == "failed", what="crash has failed")
    found = {item.name: item for item in bed.status(manager)}
    assert found["good"].state == "running"
    assert found["empty"].state == "refused"
    assert "nothing to run" in found["empty"].why


def test_a_link_where_something_is_mounted_is_refused(
    bed: Bed, store: Store, busybox_tree: Path
) -> None:
    (busybox_tree / "tmp").rmdir()
    (busybox_tree / "tmp").symlink_to("/data")
    built = store.add(busybox_tree, shell("exec sleep 60"))
    wanted = service("web", built, storage=(Mount(dest="/data", label="blobs"),))
    manager = bed.manager(wanted)
    manager.reconcile()
    status = bed.only(manager)
    assert status.state == "refused"
    assert "/tmp is a symbolic link" in status.why
    assert bed.units.started == []
    assert bed.volumes.names() == ()


@pytest.mark.tool("nft")
@pytest.mark.tool("ip")
def test_a_forwarded_port_answers_from_outside_and_from_the_host(
    bed: Bed, store: Store, busybox_tree: Path, machine: Machine
) -> None:
    """LXC, its default route and the table together; the predecessor's images needed ip."""
    (busybox_tree / "data/index.html").write_text("hello")
    built = store.add(
        busybox_tree, {"Entrypoint": ["/bin/httpd", "-f", "-p", "5000", "-h", "/data"]}
    )
    bed.units.prefix = machine.inside(machine.host)
    network = Network(type="simple", ports=(Port(host=80, container=5000),))
    one = service("web", built, network=network)
    manager = bed.manager(one)
    manager.reconcile()
    plan = plan_network([Wanted(one.id, network)])
    machine.forward(*plan.forwards, links=plan.links({one.id}))
    fetch = (
        "import sys, time, urllib.request\n"
        f"end = time.monotonic() + {PATIENCE}\n"
        "while True:\n"
        "    try: print(urllib.request.urlopen(sys.argv[1], timeout=2).read().decode()); break\n"
        "    except OSError:\n"
        "        if time.monotonic() > end: raise\n"
        "        time.sleep(.1)\n"
    )
    for space, url in (
        (machine.outside, "http://192.0.2.1/"),
        (machine.outside, "http://[2001:db8::1]/"),
        (machine.host, "http://127.0.0.1/"),
        (machine.host, "http://192.0.2.1/"),
    ):
        assert machine.python(space, fetch, url).text == "hello", url
    (ipv4, ipv6) = bed.only(manager).addresses
    assert ipv4 == str(plan.forwards[0].ipv4)
    assert ipv6 == str(plan.forwards[0].ipv6)


# Asks LXC for the pid of a container's first process (LXC_CMD_GET_INIT_PID), as somebody.
COMMAND = """
import os, socket, struct, sys
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[1]))
s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
s.settimeout(60)
try:
    s.connect('\\0' + sys.argv[2])
    s.send(struct.pack('iiP', 4, 0, 0))
    error, _, pid = struct.unpack('iiP', s.recv(16))
    print('refused', error) if error else print('answered', pid)
except (OSError, struct.error) as error:
    print('refused', type(error).__name__)
"""


@pytest.mark.attack(
    "service",
    "commands LXC by its abstract socket, to stop another service",
    "refused",
)
def test_lxc_takes_no_command_from_a_service(bed: Bed, store: Store, busybox_tree: Path) -> None:
    """Its command socket is seen by all who share the network of the host; it obeys root's id
    alone, which no service there may have."""
    built = store.add(busybox_tree, shell("echo end; exec sleep 60"))
    manager = bed.manager(service("own", built, network=Network(type="host")), service("b", built))
    manager.reconcile()
    for name in ("own", "b"):
        bed.wait_output(name, "end\n")
    name = f"{bed.folders.lxc}/b/command"
    main = bed.units.processes["machineos-b.service"].pid
    (payload,) = Path(f"/proc/{main}/task/{main}/children").read_text().split()
    ask = [sys.executable, "-c", COMMAND]
    assert run([*ask, "0", name], timeout=PATIENCE).text == f"answered {payload}"
    assert run([*ask, "165536", name], timeout=PATIENCE).text.startswith("refused")
    inside = ["nsenter", "--net", "--target", payload]
    assert run([*inside, *ask, "0", name], timeout=PATIENCE).text == (
        "refused ConnectionRefusedError"
    )


@pytest.mark.attack(
    "service",
    "writes /proc/irq, opens /proc/bus, with ids of the host",
    "empty folders lie there",
)
def test_root_with_the_hosts_ids_gives_the_kernel_no_orders(
    bed: Bed, store: Store, busybox_tree: Path
) -> None:
    """Every file of /proc that is for writing, and no process's, is opened; nothing is written."""
    script = (
        "cat /sys/class/net/lo/flags; ls /proc/irq /proc/bus;"
        " find /proc -path '/proc/[0-9]*' -prune -o -type f -perm -200 -print | while read f;"
        ' do (: >>"$f") 2>/dev/null && echo "open $f"; done; echo end; exec sleep 60'
    )
    built = store.add(busybox_tree, shell(script))
    bed.manager(service("bare", built, nsgroup="", hostid=0)).reconcile()
    lines = bed.wait_output("bare", "\nend\n").splitlines()
    assert lines[0] == "0x9"  # up, loopback
    assert "end" in lines
    assert not [line for line in lines if line.startswith("open")]
    assert [line for line in lines if line and not line.startswith(("/proc", "0x9"))] == ["end"]
