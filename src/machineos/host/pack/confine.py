"""The inside of the build sandbox: run as a program, in the namespaces that ``unshare`` made.

Mounts what a build script needs, makes the image's folder the root with nothing of the host left in
reach, drops the capabilities that act on the host, and becomes the script. Standard library only,
because it runs as ``python -I -S confine.py JSON``. Invariant: no host path but the ones in the
JSON is visible to the script, and it can neither mount, nor make devices, nor touch the kernel.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import sys

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS = {"fd": "fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_NOSUID, _NODEV, _NOEXEC, _READ_ONLY = 2, 4, 8, 1
_REMOUNT, _BIND, _PRIVATE, _RECURSIVE = 32, 4096, 1 << 18, 16384
_DETACH = 2
_CAPBSET_DROP = 24
# chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, sys_chroot,
# audit_write, setfcap: what installing packages takes.
_KEPT_CAPABILITIES = {0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 29, 31}
_LAST_CAPABILITY = 63

_libc = ctypes.CDLL(None, use_errno=True)


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    arguments = (os.fsencode(source), os.fsencode(target), kind.encode(), flags, data.encode())
    if _libc.mount(arguments[0], arguments[1], arguments[2], ctypes.c_ulong(flags), arguments[4]):
        number = ctypes.get_errno()
        raise OSError(number, f"mount {target}: {os.strerror(number)}")


def _bind(source: str, target: str, *, read_only: bool) -> None:
    _mount(source, target, "", _BIND)
    if read_only:
        _mount("", target, "", _BIND | _REMOUNT | _READ_ONLY | _NOSUID | _NODEV)


def _devices(root: str) -> None:
    folder = f"{root}/dev"
    _mount("tmpfs", folder, "tmpfs", _NOSUID | _NOEXEC, "mode=755,size=64k")
    for name in DEVICES:
        descriptor = os.open(f"{folder}/{name}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        os.close(descriptor)
        _bind(f"/dev/{name}", f"{folder}/{name}", read_only=False)
    for name, target in _LINKS.items():
        os.symlink(f"/proc/self/{target}", f"{folder}/{name}")  # noqa: PTH211 (as above)


def _enter(root: str) -> None:
    os.chdir(root)
    number = _PIVOT_ROOT.get(platform.machine())
    if number is None:
        raise OSError(f"pivot_root is not known for {platform.machine()}")
    if _libc.syscall(ctypes.c_long(number), b".", b"."):
        raise OSError(ctypes.get_errno(), "pivot_root failed")
    if _libc.umount2(b".", _DETACH):
        raise OSError(ctypes.get_errno(), "the host's root cannot be let go")
    os.chdir("/")


def _drop_capabilities() -> None:
    for capability in range(_LAST_CAPABILITY + 1):
        if capability not in _KEPT_CAPABILITIES:
            _libc.prctl(_CAPBSET_DROP, capability, 0, 0, 0)  # EINVAL above the kernel's last one


def main(text: str) -> None:
    """Enter the sandbox that the JSON object describes and become its program."""
    plan = json.loads(text)
    root = plan["root"]
    _mount("", "/", "", _PRIVATE | _RECURSIVE)
    _bind(root, root, read_only=False)
    _mount("proc", f"{root}/proc", "proc", _NOSUID | _NODEV | _NOEXEC)
    # Root may write these by their mode bits alone, without any capability: they act on the host.
    for name in ("sys", "sysrq-trigger", "irq", "bus"):
        if os.path.exists(f"{root}/proc/{name}"):  # noqa: PTH110 (no pathlib here)
            _bind(f"{root}/proc/{name}", f"{root}/proc/{name}", read_only=True)
    _devices(root)
    for source, target in plan["binds"]:
        _bind(source, f"{root}{target}", read_only=True)
    _enter(root)
    _drop_capabilities()
    os.umask(0o022)
    inherited = {name: os.environ[name] for name in plan["inherit"] if name in os.environ}
    environment = {**inherited, **plan["environment"]}
    os.execve(plan["argv"][0], plan["argv"], environment)  # noqa: S606 (this is the sandbox)


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except OSError as error:
        sys.stderr.write(f"sandbox: {error}\n")
        sys.exit(125)
