"""The way into the build sandbox: run as a program, or ``enter`` called by one.

Four processes. The first has the caller's rights (an ordinary user's are those of ``enter``): it
makes the second, writes its id map, gives it a network. The second mounts what the plan names, lets
go of the caller's root, and moves into namespaces of its own: users, processes, mounts, network,
IPC, host name, cgroups. The third is process 1 in there, drops what it may not have, and waits for
the fourth, which becomes the program: whatever ids that takes, with process 1 the kernel ends it.
Standard library only, because it runs as ``python -I -S confine.py DESCRIPTOR``: there is the plan,
which has secrets, while an argument is everybody's to read.

Invariant: the program's ids are subordinate ones, so that outside it is nobody; it sees no path of
the host but those in the plan, has no terminal and no key of the caller, and cannot make a user
namespace to get its capabilities back.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import resource
import select
import signal
import subprocess  # noqa: TID251 (nothing of the package is there when this runs)
import sys
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

DEVICES = ("null", "zero", "full", "random", "urandom")
_LINKS = {"fd": "fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
# What a program needs besides itself; on Debian all but the first are links into it.
_PROGRAMS = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
_NUMBERS = {  # of system calls: pivot_root, keyctl, and the newer ones that are the same everywhere
    "x86_64": (155, 250),
    "aarch64": (41, 219),
}
_MOUNT_SETATTR = 442
_NOSUID, _NODEV, _NOEXEC, _READ_ONLY = 2, 4, 8, 1
_BIND, _PRIVATE, _RECURSIVE = 4096, 1 << 18, 16384
_DETACH = 2
_NEW_MOUNTS, _NEW_USERS, _NEW_PROCESSES, _NEW_NETWORK = 0x20000, 1 << 28, 1 << 29, 1 << 30
_NEW_OTHERS = 0x02000000 | 0x04000000 | 0x08000000  # cgroups, host name, IPC
_PDEATHSIG, _DUMPABLE, _CAPBSET_DROP, _AMBIENT, _RAISE, _CLEAR_ALL = 1, 4, 24, 47, 2, 4
_JOIN_SESSION_KEYRING = 1
# chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, sys_chroot,
# audit_write, setfcap: what installing packages takes.
_KEPT_CAPABILITIES = {0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 29, 31}
_LAST_CAPABILITY = 63
_PATH = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
_PATIENCE = 60
FAILED = 125  # the exit status when there is no container, and how the words begin that say why
SAYS = "sandbox: "
NO_NAMESPACE = f"{SAYS}user namespace: "
_CLOUD = "169.254.0.0/16"  # where a cloud tells its machines secrets

_libc = ctypes.CDLL(None, use_errno=True)


def enter(uids: int, gids: int, count: int, place: int) -> None:
    """Move this process into a user namespace, with all capabilities there, for what it starts too.

    There are ``count`` ids from ``place`` on, the caller's subordinate ones from ``uids`` and
    ``gids`` on, and the caller, who stays what he is. The process must have one thread. Raises:
    OSError, with what the kernel or newuidmap said.
    """
    user, group, me = os.getuid(), os.getgid(), os.getpid()
    go, answer = os.pipe(), os.pipe()
    helper = os.fork()
    if helper == 0:
        os.close(go[1])
        maps = ((user, user, 1, place, uids, count), (group, group, 1, place, gids, count))
        os._exit(_write_own_maps(go[0], answer[1], me, maps))
    os.close(go[0])
    os.close(answer[1])
    try:
        _unshare(_NEW_USERS)
        os.write(go[1], b"+")
    finally:
        os.close(go[1])
        with os.fdopen(answer[0], "rb") as file:
            said = file.read().decode("utf-8", "replace").strip()
        _, status = os.waitpid(helper, 0)
    if status:
        raise PermissionError(f"newuidmap: {said or 'no answer'}")
    _keep_capabilities()


def _enter_alone() -> None:
    """The same for a process that has no subordinate ids: only the caller is there."""
    user, group = os.getuid(), os.getgid()
    _unshare(_NEW_USERS)
    _write("/proc/self/setgroups", "deny")  # else no group may be written
    _write("/proc/self/uid_map", f"{user} {user} 1")
    _write("/proc/self/gid_map", f"{group} {group} 1")


def _write_own_maps(go: int, answer: int, process: int, maps: tuple[tuple[int, ...], ...]) -> int:
    """Have the set-user-id programs of the package uidmap write what only they may."""
    if not os.read(go, 1):
        return 1
    for program, numbers in zip(("newuidmap", "newgidmap"), maps, strict=True):
        argv = [program, *(str(number) for number in (process, *numbers))]
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, stdout=answer, stderr=answer, env=_PATH, check=False
            )
        except OSError as error:
            os.write(answer, f"{program} (package uidmap): {error.strerror}".encode())
            return 1
        if done.returncode:
            return 1
    return 0


def _keep_capabilities() -> None:
    """What the process may do in its namespace, the programs that it starts may do too."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    _check(_libc.capget(header, data), "capget")
    data[2], data[5] = data[1], data[4]  # inheritable is what is permitted
    _check(_libc.capset(header, data), "capset")
    for capability in range(_LAST_CAPABILITY + 1):
        _libc.prctl(_AMBIENT, _RAISE, capability, 0, 0)  # EINVAL above the kernel's last one


def main(descriptor: int) -> int:
    """Do what the JSON object in the file says and return the exit status of its program."""
    with os.fdopen(descriptor, "rb") as file:  # closed before anything else is started
        plan: dict[str, Any] = json.load(file)
    if plan["enter"]:
        with _naming():
            _enter_as_told(plan)
    ready, go = os.pipe(), os.pipe()
    second = os.fork()
    if second == 0:
        os.close(ready[0])
        os.close(go[1])
        _guarded(_second, plan, ready[1], go[0])
    os.close(ready[1])
    os.close(go[0])
    network = None
    if os.read(ready[0], 1):
        for name, first in zip(("uid_map", "gid_map"), plan["ids"], strict=True):
            _write(f"/proc/{second}/{name}", f"0 {first} {plan['count']}\n")
        if plan["network"] == "user":
            network = _connect(second)
        os.write(go[1], b"+")
    _, status = os.waitpid(second, 0)
    if network is not None:
        os.close(network)  # slirp4netns ends with it
    return _as_shell(status)


def _enter_as_told(plan: dict[str, Any]) -> None:
    uids, gids = plan["enter"]
    if uids is None:
        _enter_alone()
    else:
        enter(uids, gids, plan["count"], plan["ids"][0])


@contextlib.contextmanager
def _naming() -> Iterator[None]:
    """Have an error be about the user namespace, which a machine may forbid."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{NO_NAMESPACE.removeprefix(SAYS)}{error.strerror or error}") from error


def _as_shell(status: int) -> int:
    """What a shell makes of a status of waitpid(2)."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _guarded(function: Any, *arguments: Any) -> NoReturn:  # noqa: ANN401 (the two below)
    """End this process with what ``function`` returns; it never goes on in the caller's code."""
    status = FAILED
    try:
        status = function(*arguments)
    except Exception as error:  # noqa: BLE001 (this is where the process ends)
        sys.stderr.write(f"{SAYS}{error}\n")
    finally:
        sys.stderr.flush()
        os._exit(status)


def _second(plan: dict[str, Any], ready: int, go: int) -> int:
    _libc.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    with _naming():  # what AppArmor takes from who entered one, this needs first
        _unshare(_NEW_MOUNTS)
    _mount("", "/", "", _PRIVATE | _RECURSIVE)
    _build(plan)
    flags = _NEW_USERS | _NEW_MOUNTS | _NEW_PROCESSES | _NEW_OTHERS
    with _naming():
        _unshare(flags if plan["network"] == "host" else flags | _NEW_NETWORK)
    os.write(ready, b"+")
    if not os.read(go, 1):
        return FAILED
    alive = os.pipe()
    third = os.fork()
    if third == 0:
        os.close(alive[1])
        _guarded(_third, plan, alive[0])
    _, status = os.waitpid(third, 0)
    return _as_shell(status)


def _third(plan: dict[str, Any], alive: int) -> int:
    with contextlib.suppress(PermissionError):  # where there is only one group anyway
        os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    _libc.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if select.select([alive], [], [], 0)[0]:
        raise OSError("whoever would wait for this is gone already")
    os.setsid()
    _call(_NUMBERS[platform.machine()][1], _JOIN_SESSION_KEYRING, None)
    _mount("proc", "/proc", "proc", _NOSUID | _NODEV | _NOEXEC)
    _write("/proc/sys/user/max_user_namespaces", "0\n")
    if plan["root"] != "host":
        for name in ("sys", "sysrq-trigger", "irq", "bus"):
            if os.path.exists(f"/proc/{name}"):  # noqa: PTH110 (no pathlib here)
                _bind(f"/proc/{name}", f"/proc/{name}", writable=False)
        _drop_capabilities()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # process 1 is not ended by it from in there
    _libc.prctl(_DUMPABLE, 0, 0, 0, 0)  # nor looked into, or stopped
    program = os.fork()
    if program == 0:
        _fourth(plan)
    while True:
        ended, status = os.waitpid(-1, 0)  # also those that the program left behind
        if ended == program:
            return _as_shell(status)


def _fourth(plan: dict[str, Any]) -> NoReturn:
    os.setsid()
    for name, value in plan["limits"].items():
        number = getattr(resource, f"RLIMIT_{name}")
        resource.setrlimit(number, (value, value))
    os.umask(0o022)
    os.chdir(plan["folder"])
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    inherited = {name: os.environ[name] for name in plan["inherit"] if name in os.environ}
    _become(plan["argv"], {**inherited, **plan["environment"]})


def _become(argv: list[str], environment: dict[str, str]) -> NoReturn:
    os.execvpe(argv[0], argv, environment)  # noqa: S606 (this is the sandbox)


def _build(plan: dict[str, Any]) -> None:
    """Mount what the program will see: below a folder, a file system in memory, or the host."""
    root = plan["root"]
    for bind in plan["binds"]:  # opened first: a mount may hide where they are
        bind[0] = f"/proc/self/fd/{os.open(bind[0], os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)}"
    if root == "host":
        for source, target, writable in plan["binds"]:
            _bind(source, target, writable=writable)
        return
    if root:
        _bind(root, root, writable=True)
    else:
        root = "/mnt"
        _mount("tmpfs", root, "tmpfs", _NOSUID | _NODEV, f"mode=755,{_owner(plan)}")
        _programs(root, plan["ids"])
        for source, target, _ in plan["binds"]:
            _make_place(source, f"{root}{target}")
    _mount("/proc", f"{root}/proc", "", _BIND | _RECURSIVE)  # else no new one may be mounted there
    _devices(root, plan)
    for source, target, writable in plan["binds"]:
        _bind(source, f"{root}{target}", writable=writable)
    if plan["scratch"]:
        size, entries = plan["scratch"]
        options = f"mode=755,size={size},nr_inodes={entries},{_owner(plan)}"
        _mount("tmpfs", f"{root}/scratch", "tmpfs", _NOSUID | _NODEV, options)
    if plan["resolver"]:
        _bind(f"{root}/dev/.resolv.conf", f"{root}/etc/resolv.conf", writable=False)
    os.chdir(root)
    _call(_NUMBERS[platform.machine()][0], b".", b".")
    _check(_libc.umount2(b".", _DETACH), "letting the host's root go")
    os.chdir("/")


def _owner(plan: dict[str, Any]) -> str:
    return "uid={},gid={}".format(*plan["ids"])


def _make_place(source: str, target: str) -> None:
    if os.path.isdir(source):  # noqa: PTH112 (no pathlib here)
        os.mkdir(target)  # noqa: PTH102
    else:
        _touch(target, "")


def _programs(root: str, ids: list[int]) -> None:
    for name in _PROGRAMS:
        if os.path.islink(f"/{name}"):  # noqa: PTH114 (no pathlib here)
            os.symlink(os.readlink(f"/{name}"), f"{root}/{name}")  # noqa: PTH115, PTH211
        elif os.path.isdir(f"/{name}"):  # noqa: PTH112
            os.mkdir(f"{root}/{name}")  # noqa: PTH102
            _bind(f"/{name}", f"{root}/{name}", writable=False)
    for name in ("proc", "dev", "scratch", "tmp"):
        os.mkdir(f"{root}/{name}")  # noqa: PTH102
        os.chown(f"{root}/{name}", *ids)


def _devices(root: str, plan: dict[str, Any]) -> None:
    folder = f"{root}/dev"
    _mount("tmpfs", folder, "tmpfs", _NOSUID | _NOEXEC, f"mode=755,size=64k,{_owner(plan)}")
    for name in DEVICES:
        _touch(f"{folder}/{name}", "")
        _bind(f"/dev/{name}", f"{folder}/{name}", writable=False, devices=True)
    for name, target in _LINKS.items():
        os.symlink(f"/proc/self/{target}", f"{folder}/{name}")  # noqa: PTH211 (no pathlib here)
    if plan["resolver"]:
        _touch(f"{folder}/.resolv.conf", plan["resolver"])


def _touch(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)
    os.write(descriptor, text.encode())
    os.close(descriptor)


def _connect(process: int) -> int:
    """Give the namespace of ``process`` a network; return a descriptor that ends it when closed.

    slirp4netns opens the connections, as the caller. What it must not open it is never asked for:
    routes in there lead nowhere for the addresses of this machine.
    """
    ready, end = os.pipe(), os.pipe()
    argv = [
        "slirp4netns", "--configure", "--mtu=65520", "--disable-host-loopback", "--enable-sandbox",
        "--enable-seccomp", f"--ready-fd={ready[1]}", f"--exit-fd={end[0]}", str(process), "tap0",
    ]  # fmt: skip
    try:
        subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env=_PATH, pass_fds=(ready[1], end[0]),
        )  # fmt: skip
    except OSError as error:
        raise OSError(error.errno, f"slirp4netns: {error.strerror}") from error
    os.close(ready[1])
    os.close(end[0])
    if not select.select([ready[0]], [], [], _PATIENCE)[0] or not os.read(ready[0], 1):
        raise OSError("slirp4netns gives no network")
    listed = subprocess.run(
        ["ip", "-json", "-4", "address"], capture_output=True, env=_PATH, check=True
    ).stdout
    known = [address["local"] for link in json.loads(listed) for address in link["addr_info"]]
    own = [address for address in known if not address.startswith("127.")]
    lines = [f"route add blackhole {place}" for place in sorted({*own, _CLOUD})]
    inside = ["nsenter", f"--user=/proc/{process}/ns/user", f"--net=/proc/{process}/ns/net"]
    subprocess.run(
        [*inside, "ip", "-batch", "-"],
        input="\n".join(lines).encode(), env=_PATH, check=True,
    )  # fmt: skip
    return end[1]


def _bind(source: str, target: str, *, writable: bool, devices: bool = False) -> None:
    _mount(source, target, "", _BIND | _RECURSIVE)
    flags = _NOSUID | (0 if devices else _NODEV) | (0 if writable else _READ_ONLY)
    where = os.open(target, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        attributes = (ctypes.c_uint64 * 4)(flags, 0, 0, 0)
        at = 0x1000 | 0x8000  # AT_EMPTY_PATH, AT_RECURSIVE; only adds, what was set stays
        _call(_MOUNT_SETATTR, where, b"", at, attributes, ctypes.sizeof(attributes))
    finally:
        os.close(where)


def _drop_capabilities() -> None:
    for capability in range(_LAST_CAPABILITY + 1):
        if capability not in _KEPT_CAPABILITIES:
            _libc.prctl(_CAPBSET_DROP, capability, 0, 0, 0)  # EINVAL above the kernel's last one
    _libc.prctl(_AMBIENT, _CLEAR_ALL, 0, 0, 0)


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    os.write(descriptor, text.encode())
    os.close(descriptor)


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    arguments = (os.fsencode(source), os.fsencode(target), kind.encode(), flags, data.encode())
    failed = _libc.mount(*arguments[:3], ctypes.c_ulong(flags), arguments[4])
    _check(failed, f"mount {target}")


def _unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def _call(number: int, *arguments: Any) -> None:  # noqa: ANN401 (whatever the system call takes)
    result = _libc.syscall(ctypes.c_long(number), *arguments)
    _check(-1 if result < 0 else 0, f"system call {number}")


def _check(failed: int, what: str) -> None:
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


if __name__ == "__main__":
    try:
        sys.exit(main(int(sys.argv[1])))
    except (OSError, subprocess.SubprocessError) as problem:
        sys.stderr.write(f"{SAYS}{problem}\n")
        sys.exit(FAILED)
