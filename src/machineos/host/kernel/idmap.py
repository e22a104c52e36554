"""User namespaces that exist only to carry an id map, for id-mapped mounts.

A child enters a new user namespace, we write its map, keep the namespace open by its file, and end
the child; the namespace lives as long as the descriptor. Fork is safe only in a process with one
thread, which is why mosd has one.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.errors import ToolError

if TYPE_CHECKING:
    from collections.abc import Iterator

_CLONE_NEWUSER = 0x10000000
_MAX_ID = (1 << 32) - 2


@dataclass(frozen=True, slots=True)
class IdRange:
    """``count`` ids: 0.. inside is ``first``.. on the host, for users and groups alike."""

    first: int
    count: int

    def __post_init__(self) -> None:
        if self.first < 0 or self.count < 1 or self.first + self.count > _MAX_ID:
            raise ToolError(f"id range {self.first}+{self.count} is not possible")

    def host(self, inside: int) -> int:
        """Return the host's id for an id of the namespace. Raises: ToolError when not mapped."""
        if not 0 <= inside < self.count:
            raise ToolError(f"id {inside} is outside the {self.count} ids of the namespace")
        return self.first + inside

    def line(self) -> bytes:
        """The line for /proc/PID/uid_map."""
        return b"0 %d %d\n" % (self.first, self.count)


@contextmanager
def user_namespace(ids: IdRange) -> Iterator[int]:
    """Yield a descriptor of a user namespace with the map ``ids``; closed at the end.

    Raises: ToolError (the kernel refused, or this process has several threads).
    """
    if threading.active_count() != 1:
        raise ToolError("a user namespace is made by fork, which needs a process with one thread")
    ready_read, ready_write = os.pipe()
    hold_read, hold_write = os.pipe()
    # Found before the fork: the child does nothing but system calls.
    libc = ctypes.CDLL(None, use_errno=True)
    child = os.fork()
    if child == 0:
        _child(libc, ready_write, hold_read, (ready_read, hold_write))
    os.close(ready_write)
    os.close(hold_read)
    namespace = -1
    try:
        code = os.read(ready_read, 1)
        if code != b"\0":
            raise ToolError(f"user namespace: {os.strerror(code[0]) if code else 'child died'}")
        namespace = _write_map(child, ids)
    finally:
        os.close(ready_read)
        os.close(hold_write)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    try:
        yield namespace
    finally:
        os.close(namespace)


def _child(libc: ctypes.CDLL, ready: int, hold: int, others: tuple[int, int]) -> None:
    """Enter the namespace, say so, and wait until the parent has died or ended us."""
    try:
        for descriptor in others:
            os.close(descriptor)
        failed = libc.unshare(_CLONE_NEWUSER) != 0
        os.write(ready, bytes([ctypes.get_errno() if failed else 0]))
        os.read(hold, 1)
    finally:
        os._exit(0)


def _write_map(child: int, ids: IdRange) -> int:
    folder = Path(f"/proc/{child}")
    try:
        # One write each: the kernel takes the whole map at once.
        (folder / "uid_map").write_bytes(ids.line())
        (folder / "gid_map").write_bytes(ids.line())
        return os.open(folder / "ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ToolError(f"user namespace {ids.first}+{ids.count}: {error.strerror}") from error
