"""The caller's subordinate ids, as this machine knows them, and programs in containers of them."""

from __future__ import annotations

import fcntl
import os
import pwd
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from machineos.core.command import Result
from machineos.core.run import describe, find, perform
from machineos.errors import MissingToolError, ToolError
from machineos.host.pack import confine, container, subids
from machineos.host.pack.pipe import piped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from machineos.host.pack.container import Box, Ids

_FILES = (Path("/etc/subuid"), Path("/etc/subgid"))


def container_ids(what: str) -> Ids:
    """Return what the ids of a container are for this process, which wants to do ``what``.

    Raises: UsageError, which says how to get subordinate ids.
    """
    return subids.ids_of(_caller(), what)


def ids_to_look() -> Ids:
    """Return what the ids of a container are in which something is only looked at: one will do."""
    return subids.ids_to_look(_caller())


def enter(what: str) -> None:
    """Have this process be one that may give files to its subordinate ids, also in the programs
    that it starts. It must have one thread. Nothing happens to root, nor a second time.

    Raises: UsageError, which says how to get what is missing.
    """
    ids = container_ids(what)
    if ids.enter is None:
        return
    uids, gids = ids.enter
    assert uids is not None  # noqa: S101 (for the type checker)
    assert gids is not None  # noqa: S101
    try:
        confine.enter(uids, gids, ids.count, ids.uid)
    except OSError as error:
        raise subids.refused(error, _switches(), what) from error


def own_ids(what: str) -> Ids:
    """Return the ids of a container for a process that gives files to them itself.

    Raises: UsageError, also for an ordinary user who has not entered: see ``enter``.
    """
    ids = container_ids(what)
    if ids.enter is not None:
        raise subids.not_entered(what)
    return ids


def run_boxed(
    box: Box,
    ids: Ids,
    *,
    timeout: float,
    log: IO[bytes] | None = None,
    more: Mapping[str, str] | None = None,
    check: bool = True,
) -> Result:
    """Run the program of ``box`` to its end; ``log`` gets what it writes, if given.

    ``more`` are variables that ``box`` may inherit, see ``run.perform``.

    Raises: MissingToolError, ToolTimeoutError, ToolError (it did not end well; with ``check``),
    UsageError when this machine forbids containers (with ``log``: see ``require_container``).
    """
    _require_program(box)
    with _told(box, ids) as plan:
        command = container.command(_confine(), plan, timeout=timeout)
        result = perform(command, stdout=log, stderr=log, more=more)
    result = Result(box.argv, result.status, result.stdout, result.stderr)
    require_container(result.status, result.complaint)
    if check and result.status != 0:
        raise ToolError(describe(result))
    return result


@contextmanager
def boxed_output(box: Box, ids: Ids, *, problem: str) -> Iterator[Iterator[bytes]]:
    """Yield what the program of ``box`` writes, as ``piped`` does.

    Raises: MissingToolError, and while iterating ArchiveError; ToolError or UsageError when there
    was no container for it, which says nothing about what it reads.
    """
    _require_program(box)

    def require_run(status: int, said: str) -> None:
        require_container(status, said)
        if status == confine.FAILED:
            raise ToolError(describe(Result(box.argv, status, b"", said.encode())))

    with _told(box, ids) as plan:
        command = container.command(_confine(), plan, timeout=0)
        with piped(
            command.argv, problem=problem, pass_fds=command.pass_fds, require_run=require_run
        ) as chunks:
            yield chunks


def require_container(status: int, said: str) -> None:
    """Raises: UsageError, which names the switch, if by its exit status and the end of what it said
    a program had no container because this machine forbids user namespaces."""
    _, found, problem = said.rpartition(confine.NO_NAMESPACE)
    if status == confine.FAILED and found:
        raise subids.refused(OSError(problem), _switches(), "a container")


@contextmanager
def _told(box: Box, ids: Ids) -> Iterator[int]:
    """Have what ``confine`` is told in a file that nobody else sees and nobody changes."""
    with os.fdopen(os.memfd_create("plan", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "r+b") as file:
        file.write(container.plan(box, ids))
        file.seek(0)
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL)
        yield file.fileno()


def _confine() -> list[str]:
    return [sys.executable, "-I", "-S", str(Path(confine.__file__))]


def _require_program(box: Box) -> None:
    """What starts it would say that itself is there."""
    of_ours = box.root is None or box.root == "host"
    wanted = [*box.needs, box.argv[0]] if of_ours else []
    wanted += ["slirp4netns", "ip", "nsenter"] if box.network == "user" else []
    for name in wanted:
        if find(name) is None:
            raise MissingToolError(
                f"{name} is not installed", hint="scripts/setup installs every tool that is used"
            )


def _caller() -> subids.Caller:
    uid, name = os.geteuid(), ""
    with suppress(KeyError):
        name = pwd.getpwuid(uid).pw_name
    users, groups = (path.read_text("utf-8", "replace") if path.exists() else "" for path in _FILES)
    return subids.Caller(
        uid, os.getegid(), name, users, groups, Path("/proc/self/uid_map").read_text("ascii")
    )


def _switches() -> dict[str, str]:
    found = {}
    for name in subids.SWITCHES:
        with suppress(OSError):
            path = Path("/proc/sys", *name.split(".", 1))
            found[name] = path.read_text("ascii").strip()
    return found
