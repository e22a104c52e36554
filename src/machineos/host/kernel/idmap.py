"""User namespaces that exist only to carry an id map, for id-mapped mounts.

The kernel makes one only for a process that enters it, and a process of several threads may not. So
a small program does: it enters, says so, and waits; we write its map, keep the namespace open by
its file, and end the program. Nothing here forks this process, so it may have threads (ADR 0021).
The program ends by itself when we do, because it reads from a pipe of ours.
"""

from __future__ import annotations

import os
import select
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.core.run import spawn
from machineos.errors import ToolError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from machineos.core.idrange import IdRange

# In the namespace, cat sends back what it is sent, and ends with its input.
PROGRAM = ("unshare", "--user", "--", "cat")
_TIMEOUT = 60.0
_SIGN = b"\n"


@contextmanager
def user_namespace(ids: IdRange, *, program: Sequence[str] = PROGRAM) -> Iterator[int]:
    """Yield a descriptor of a user namespace with the map ``ids``; closed at the end.

    Raises: MissingToolError, ToolError (the kernel refused).
    """
    namespace = _made(ids, program)
    try:
        yield namespace
    finally:
        os.close(namespace)


def _made(ids: IdRange, argv: Sequence[str]) -> int:
    source, feed = os.pipe()
    answer, said = os.pipe()
    try:
        try:
            program = spawn(argv, stdin=source, log=said)
        finally:
            os.close(source)
            os.close(said)
        try:
            _wait_for_entry(feed, answer)
            return _mapped(program.pid, ids)
        finally:
            program.kill()
            program.wait()
    finally:
        os.close(feed)
        os.close(answer)


def _wait_for_entry(feed: int, answer: int) -> None:
    with suppress(BrokenPipeError):  # it has ended: what it said says why
        os.write(feed, _SIGN)
    ready, _, _ = select.select([answer], [], [], _TIMEOUT)
    text = os.read(answer, 1024) if ready else b"no answer"
    if text != _SIGN:
        why = text.decode("utf-8", "replace").strip() or "its program has ended"
        raise ToolError(f"user namespace: {why}")


def _mapped(process: int, ids: IdRange) -> int:
    folder = Path(f"/proc/{process}")
    try:
        # One write each: the kernel takes the whole map at once.
        (folder / "uid_map").write_bytes(ids.line)
        (folder / "gid_map").write_bytes(ids.line)
        return os.open(folder / "ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ToolError(f"user namespace {ids.first}+{ids.count}: {error.strerror}") from error
