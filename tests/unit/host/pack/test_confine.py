"""What a program in the container of the builder finds of the machine: each test is an attack."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from machineos.core.run import run
from machineos.errors import MissingToolError, ToolError, ToolTimeoutError
from machineos.host.pack.caller import boxed_output, container_ids, run_boxed
from machineos.host.pack.container import PATH, Bind, Box
from waiting import PATIENCE, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from machineos.host.pack.container import Network

pytestmark = [
    pytest.mark.system,
    pytest.mark.tool("slirp4netns"),
    pytest.mark.tool("nsenter"),
    pytest.mark.tool("ip"),
]
_ADD_KEY, _KEYCTL = {"x86_64": (248, 250), "aarch64": (217, 219)}[os.uname().machine]
_SEARCH, _REVOKE = 10, 3
_KEYRINGS = {"session": -3, "user": -4, "user session": -5}
_libc = ctypes.CDLL(None, use_errno=True)


def inside(
    code: str, *, network: Network = "none", binds: tuple[Bind, ...] = (), limit: int = 0
) -> str:
    """What a Python program prints that runs in a container of its own."""
    box = Box(
        ("python3", "-I", "-c", code),
        network=network,
        binds=binds,
        limits=(("NPROC", limit),) if limit else (),
    )
    return run_boxed(box, container_ids("a test"), timeout=PATIENCE).text


@contextmanager
def key_in(keyring: int) -> Iterator[str]:
    """A key of ours that a program of ours could read, in one of our keyrings."""
    name = f"machineos-test-{secrets.token_hex(8)}"
    key = _libc.syscall(_ADD_KEY, b"user", name.encode(), b"secret", 6, keyring)
    assert key > 0, os.strerror(ctypes.get_errno())
    try:
        yield name
    finally:
        _libc.syscall(_KEYCTL, _REVOKE, key)


@pytest.mark.parametrize("keyring", sorted(_KEYRINGS))
def test_keys_of_the_caller_are_not_found(keyring: str) -> None:
    search = (
        "import ctypes, sys; libc = ctypes.CDLL(None); found = [libc.syscall("
        f"{_KEYCTL}, {_SEARCH}, ring, b'user', b'NAME', 0) for ring in (-3, -4, -5)];"
        "print(max(found) > 0)"
    )
    with key_in(_KEYRINGS[keyring]) as name:
        code = search.replace("NAME", name)
        assert run([sys.executable, "-I", "-c", code], timeout=PATIENCE).text == "True"
        assert inside(code) == "False"


def connecting(family: str, address: object) -> str:
    return (
        "import socket\n"
        f"with socket.socket(socket.{family}) as one:\n"
        "    one.settimeout(5)\n"
        f"    try: one.connect({address!r}); print('reached')\n"
        "    except OSError as error: print('not reached')"
    )


@pytest.mark.parametrize("network", ["none", "user"])
def test_abstract_sockets_of_the_machine_do_not_answer(network: Network) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        name = f"\0machineos-test-{secrets.token_hex(8)}"
        server.bind(name)
        server.listen()
        code = connecting("AF_UNIX", name)
        assert run([sys.executable, "-I", "-c", code], timeout=PATIENCE).text == "reached"
        assert inside(code, network=network) == "not reached"


def own_addresses() -> list[str]:
    """The addresses of this machine: what a service that listens everywhere answers at."""
    listed = json.loads(run(["ip", "-json", "-4", "address"], timeout=PATIENCE).text)
    return [address["local"] for link in listed for address in link["addr_info"]]


@pytest.mark.parametrize("network", ["none", "user"])
def test_services_of_the_machine_do_not_answer(network: Network) -> None:
    """Neither at its loopback, nor at what the container calls its gateway, nor at any address."""
    with socket.socket() as server:
        server.bind(("0.0.0.0", 0))
        server.listen()
        port = server.getsockname()[1]
        assert inside_all(["127.0.0.1"], port, None) == {"127.0.0.1": "reached"}
        places = [*own_addresses(), "10.0.2.2", "169.254.169.254"]
        found = inside_all(places, port, network)
        assert set(found.values()) == {"not reached"}


def inside_all(places: list[str], port: int, network: Network | None) -> dict[str, str]:
    code = "\n".join(connecting("AF_INET", (place, port)) for place in places)
    if network is None:
        said = run([sys.executable, "-I", "-c", code], timeout=PATIENCE).text
    else:
        said = inside(code, network=network)
    return dict(zip(places, said.splitlines(), strict=True))


def test_names_and_strangers_can_be_asked_when_the_network_is_there() -> None:
    """As far as this machine has a network itself: a way out, and somebody who knows names."""
    routes = "print(any(line.split()[1] == '00000000' for line in open('/proc/net/route')))"
    assert inside(routes, network="user") == "True"
    assert inside(routes) == "False"


def test_nodes_of_the_machine_are_not_changed() -> None:
    before = Path("/dev/full").stat().st_mode
    code = (
        "import os\n"
        "for name in sorted(os.listdir('/dev')):\n"
        "    if not os.path.islink('/dev/' + name):\n"
        "        try: os.chmod('/dev/' + name, 0o600); print('changed')\n"
        "        except OSError: print('refused')\n"
        "open('/dev/null', 'w').write('x')"
    )
    assert set(inside(code).splitlines()) == {"refused"}
    assert Path("/dev/full").stat().st_mode == before


def test_there_is_no_terminal(tmp_path: Path) -> None:
    """Whoever has one could type into it (TIOCSTI), and so run commands as the caller."""
    attack = (
        "import os\n"
        "try: os.close(os.open('/dev/tty', os.O_RDWR)); print('reached')\n"
        "except OSError: print('none', *map(os.isatty, range(3)))"
    )
    code = (
        "from machineos.core.run import run\n"
        "from machineos.host.pack.caller import container_ids, run_boxed\n"
        "from machineos.host.pack.container import Box\n"
        "open('/dev/tty').close()\n"
        f"attack = ('python3', '-I', '-c', {attack!r})\n"
        "print(run(attack, timeout=60).text)\n"
        "print(run_boxed(Box(attack), container_ids('a test'), timeout=60).text)\n"
    )
    ours, theirs = os.openpty()
    try:
        said = subprocess.run(
            ["setsid", "--ctty", "--wait", sys.executable, "-c", code],
            stdin=theirs, stdout=subprocess.PIPE, check=True, timeout=PATIENCE, text=True,
        ).stdout  # fmt: skip
    finally:
        os.close(ours)
        os.close(theirs)
    assert said.splitlines() == ["none False False False"] * 2


def test_its_ids_are_nobodys_outside(tmp_path: Path) -> None:
    ids = container_ids("a test")
    os.chown(tmp_path, ids.uid, ids.gid)
    code = "import os; open('/out/f', 'w').close(); os.chown('/out/f', 5, 6); print(os.getgroups())"
    assert inside(code, binds=(Bind(tmp_path, "/out", writable=True),)) == "[]"
    status = (tmp_path / "f").stat()
    assert (status.st_uid, status.st_gid) == (ids.uid + 5, ids.gid + 6)
    assert ids.uid >= 65536


def test_what_is_bound_for_reading_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("as it was")
    (tmp_path / "f").chmod(0o666)
    code = "try: open('/in/f', 'w')\nexcept OSError: print('refused')"
    assert inside(code, binds=(Bind(tmp_path, "/in"),)) == "refused"
    assert (tmp_path / "f").read_text() == "as it was"


def test_it_gets_no_capability_back() -> None:
    """In a user namespace of its own it would have all, and with them most of the kernel."""
    code = (
        "import os, subprocess\n"
        "made = subprocess.run(['unshare', '--user', 'true'], stderr=-3).returncode == 0\n"
        "caps = [line.split()[1] for line in open('/proc/self/status') if 'CapBnd' in line]\n"
        "print(made, *caps)"
    )
    assert inside(code) == "False 00000000a00405fb"


def test_nothing_else_of_the_machine_is_there() -> None:
    code = "import os; print(*sorted(os.listdir('/')), os.getpid(), os.uname().nodename != '')"
    programs = {"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"}
    assert set(inside(code).split()) <= {*programs, "proc", "dev", "scratch", "tmp", "2", "True"}


def test_processes_are_counted() -> None:
    code = (
        "import os, time\n"
        "made = 0\n"
        "try:\n"
        "    for _ in range(100):\n"
        "        if os.fork() == 0: time.sleep(60)\n"
        "        made += 1\n"
        "except OSError: pass\n"
        "print(made < 40)"
    )
    assert inside(code, limit=40) == "True"


def test_it_ends_with_the_time_that_it_has() -> None:
    with pytest.raises(ToolTimeoutError):
        run_boxed(Box(("sleep", "60")), container_ids("a test"), timeout=0.5)


@pytest.mark.tool("setpriv")
def test_a_program_that_takes_other_ids_ends_with_who_started_it() -> None:
    """The kernel forgets then what a process wanted to be told about its parent (prctl(2))."""
    nap = str(secrets.randbelow(10**9) + 10**9)
    taken = "setpriv --reuid 7 --regid 8 --clear-groups"
    box = Box(("sh", "-c", f"exec {taken} sleep {nap}"))
    with boxed_output(box, container_ids("a test"), problem="x"):
        wait_for(lambda: sleeps(nap), what="it has other ids")
    wait_for(lambda: not sleeps(nap), what="the kernel ends what the program became")


def sleeps(nap: str) -> bool:
    wanted = f"sleep\0{nap}\0".encode()
    return wanted in map(arguments, Path("/proc").glob("[0-9]*/cmdline"))


def test_who_ends_with_the_program_is_not_ended_by_it() -> None:
    """Process 1 ends all others when it is gone, so nobody in there stops it or looks into it."""
    code = (
        "import os, signal\n"
        "for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP):\n"
        "    os.kill(1, number)\n"
        "try: open('/proc/1/mem', 'rb'); print('opened')\n"
        "except OSError: print('refused')"
    )
    assert inside(code) == "refused"


def test_how_it_ended_is_told() -> None:
    ids = container_ids("a test")
    with pytest.raises(ToolError, match="sh -c echo no >&2; exit 9: exit status 9: no"):
        run_boxed(Box(("sh", "-c", "echo no >&2; exit 9")), ids, timeout=PATIENCE)
    killed = run_boxed(Box(("sh", "-c", "kill -9 $$")), ids, timeout=PATIENCE, check=False)
    assert killed.status == 137
    with pytest.raises(MissingToolError, match="no-such-program is not installed"):
        run_boxed(Box(("no-such-program",)), ids, timeout=PATIENCE)
    with pytest.raises(ToolError, match=r"exit status 125: sandbox: .*No such file"):
        run_boxed(Box(("true",), root=Path("/no/such/folder")), ids, timeout=PATIENCE)


def test_the_environment_is_what_was_said() -> None:
    code = "import os; print(*sorted(os.environ))"
    assert set(inside(code).split()) <= {"LANG", "LC_CTYPE", "PATH", "TZ"}
    assert PATH.startswith("/usr/local/sbin")


def test_no_argument_of_a_process_shows_its_environment(tmp_path: Path) -> None:
    """What ps prints is for every user of the machine; and an argument ends at 128 KiB."""
    secret = f"hush-{secrets.token_hex(8)}"
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    gate.chmod(0o666)
    tmp_path.chmod(0o755)
    large = tuple((f"LARGE_{number}", "x" * 100_000) for number in range(4))
    box = Box(
        ("sh", "-c", "cat /in/gate; echo $SECRET ${#LARGE_3}; ls /proc/self/fd | wc -l"),
        binds=(Bind(tmp_path, "/in"),),
        environment=(("PATH", PATH), ("SECRET", secret), *large),
    )
    opened: list[int] = []
    with boxed_output(box, container_ids("a test"), problem="x") as chunks:
        wait_for(lambda: enter_gate(gate, opened), what="it reads")
        shown = b"".join(map(arguments, Path("/proc").glob("[0-9]*/cmdline")))
        os.close(opened.pop())
        said = b"".join(chunks).decode()
    assert b"confine.py" in shown
    assert secret.encode() not in shown
    assert said.split() == [secret, "100000", "4"]  # its three, and the folder that ls reads


def enter_gate(gate: Path, opened: list[int]) -> bool:
    """Whether somebody reads from a pipe; then its other end is opened."""
    with contextlib.suppress(OSError):
        opened.append(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))
    return bool(opened)


def arguments(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


def test_a_machine_that_forbids_containers_is_named_and_not_what_would_be_read() -> None:
    """The limit is that of a user namespace: in one of its own, a process may set it to none."""
    code = (
        "from machineos.errors import MachineOSError\n"
        "from machineos.host.pack.caller import boxed_output, ids_to_look, run_boxed\n"
        "from machineos.host.pack.container import Box, Ids\n"
        "box = Box(('true',))\n"
        "def read(ids):\n"
        "    with boxed_output(box, ids, problem='x is not whole') as chunks: list(chunks)\n"
        "def start(ids): run_boxed(box, ids, timeout=60)\n"
        "for does in (read, start):\n"
        "    for ids in (ids_to_look(), Ids(0, 0, 1, 0)):\n"
        "        try: does(ids)\n"
        "        except MachineOSError as error: print(error.message, error.hint, sep='|')"
    )
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    argv = ["unshare", "--user", "--map-root-user", "sh", "-c", forbid, "sh", sys.executable]
    said = run([*argv, "-c", code], timeout=PATIENCE).text.splitlines()
    assert (
        said
        == [
            "a container needs a user namespace: unshare: No space left on device|this machine "
            "forbids it to ordinary users: sudo sysctl user.max_user_namespaces=15000"
        ]
        * 4
    )


def test_what_could_not_be_read_is_not_called_bad(tmp_path: Path) -> None:
    box = Box(("true",), root=tmp_path / "none")
    with pytest.raises(ToolError, match=r"exit status 125: sandbox: .*No such file"):
        with boxed_output(box, container_ids("a test"), problem="x is not whole") as chunks:
            list(chunks)
