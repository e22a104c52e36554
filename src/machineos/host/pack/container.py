"""Programs in a container of this machine's own: what ``confine`` is told about one. Pure.

For programs that read what strangers wrote, and for those that write files of many owners. Their
root is a folder, or nothing but the machine's programs, or (for what builds a Debian root) the
machine as it is. Invariant: the ids in it are the subordinate ones of ``Ids``, so that outside it
nobody has them; when its command ends, or is killed, every process and every mount in it is gone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from machineos.core.command import Command

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENTERED = 2_000_000_000  # where subordinate ids begin for who has entered them
ALONE = (None, None)  # in the place of subordinate ids: none are entered
# A file of a container's own, where slirp4netns answers names as the machine itself does.
RESOLVER = "nameserver 10.0.2.3\n"
# For programs that read what strangers packed: more than the largest of it needs, in bytes.
LIMITS = (("AS", 4 << 30), ("NPROC", 256), ("CORE", 0))
Network = Literal["none", "user", "host"]


@dataclass(frozen=True, slots=True)
class Ids:
    """What user and group 0 of a container are for this process, and how many there are of each.

    ``base`` is what user 0 is for the machine. ``enter``: the subordinate ids that have to be
    entered first, when this process may not give files to them itself.
    """

    uid: int
    gid: int
    count: int
    base: int
    enter: tuple[int, int] | tuple[None, None] | None = None

    def capability(self, value: bytes) -> bytes:
        """Return what makes ``value`` of ``security.capability`` count in the container: its root
        has to be named where it is not ours (capabilities(7), "Namespaced file capabilities")."""
        version_2 = len(value) == 20 and value[3] == 2
        if not version_2 or not self.uid:
            return value
        return value[:3] + b"\x03" + value[4:] + self.uid.to_bytes(4, "little")


@dataclass(frozen=True, slots=True)
class Bind:
    """A file or folder of the machine, and where the program sees it."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Box:
    """What a program gets. Its environment is ``environment`` and nothing else.

    ``root``: a folder to be the root, which has folders for ``proc``, ``dev`` and the binds; None:
    a root that has this machine's programs, read-only, and the binds; ``host``: this machine's own.
    ``scratch``: bytes and files of a folder in memory at ``/scratch`` (not with ``host``).
    ``limits``: names and values of setrlimit(2). ``resolver``: mount a resolv.conf of its own.
    ``needs``: programs that its own starts. ``inherit``: names of variables that it gets as well,
    from who starts it: no value and no argument shows what they are.
    """

    argv: tuple[str, ...]
    root: Path | Literal["host"] | None = None
    binds: tuple[Bind, ...] = ()
    network: Network = "none"
    environment: tuple[tuple[str, str], ...] = (("PATH", PATH), ("LANG", "C.UTF-8"), ("TZ", "UTC"))
    folder: str = "/"
    resolver: bool = False
    scratch: tuple[int, int] | None = None
    limits: tuple[tuple[str, int], ...] = ()
    needs: tuple[str, ...] = ()
    inherit: tuple[str, ...] = ()


def speaking(script: str) -> tuple[str, ...]:
    """Return the arguments of a shell that runs ``script`` (text of ours) and writes what it
    complained of only when it failed, so that its output is nothing else."""
    return ("sh", "-c", f"{{ {script}; }} 2>/tmp/said || {{ tail -c 200 /tmp/said >&2; exit 1; }}")


def plan(box: Box, ids: Ids) -> bytes:
    """Return what ``confine`` reads about ``box``: JSON, with the values of its environment."""
    told = {
        "enter": ids.enter,
        "ids": [ids.uid, ids.gid],
        "count": ids.count,
        "root": "" if box.root is None else str(box.root),
        "binds": [[str(bind.source), bind.target, bind.writable] for bind in box.binds],
        "network": box.network,
        "argv": box.argv,
        "environment": dict(box.environment),
        "inherit": box.inherit,
        "folder": box.folder,
        "resolver": RESOLVER if box.resolver else "",
        "scratch": box.scratch,
        "limits": dict(box.limits),
    }
    return json.dumps(told).encode()


def command(program: Sequence[str], descriptor: int, *, timeout: float) -> Command:
    """Return the command that runs the program of the plan that is in the file ``descriptor``;
    ``program`` starts ``confine``. No argument shows a value of an environment.

    Its exit status is that of the program, 125 when there could be no container; all are answers.
    """
    return Command((*program, str(descriptor)), timeout, pass_fds=(descriptor,), success=None)
