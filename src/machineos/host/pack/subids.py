"""Subordinate ids: which ones a caller has, and what to do about having none. Pure.

Formats: subuid(5), subgid(5), and ``/proc/PID/uid_map`` of user_namespaces(7).
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from machineos.errors import UsageError
from machineos.host.pack.container import ALONE, ENTERED, Ids

if TYPE_CHECKING:
    from collections.abc import Mapping

LEAST = 65536  # ids that a container of Debian needs
# For root where no file gives it any: the end of what systemd sets apart for containers (its
# "Users, Groups, UIDs and GIDs on systemd Systems"), first and count.
ROOTS = (1 << 30, 1_879_048_192 - (1 << 30))
_FIRST = 100_000  # of the ids that usermod gives
_SWITCHES = {
    "kernel.unprivileged_userns_clone": "0",
    "kernel.apparmor_restrict_unprivileged_userns": "1",
    "user.max_user_namespaces": "0",
}
SWITCHES = tuple(_SWITCHES)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: effective ids, name ("" when it has none), the texts of ``/etc/subuid`` and
    ``/etc/subgid``, and the id map of the user namespace it is in."""

    uid: int
    gid: int
    name: str
    subuid: str
    subgid: str
    uid_map: str


def ids_of(caller: Caller, what: str) -> Ids:
    """Return what the ids of a container are for ``caller``, who wants to do ``what``.

    Raises: UsageError, which says how to get subordinate ids.
    """
    entered = inside(caller.uid, caller.uid_map)
    if entered is not None:
        base, count = entered
        return Ids(ENTERED, ENTERED, count, base)
    users = _range(caller.subuid, caller)
    groups = _range(caller.subgid, caller)
    if caller.uid == 0:
        (uid, many), (gid, also) = users or ROOTS, groups or ROOTS
        found = Ids(uid, gid, min(many, also), uid)
        if not _mapped(found, caller.uid_map):
            raise UsageError(
                f"{what} needs {LEAST} free ids, and this user namespace has none at {uid}",
                hint="write a range that it has into /etc/subuid and /etc/subgid: root:FIRST:65536",
            )
        return found
    if users is None or groups is None:
        raise UsageError(
            f"{what} needs {LEAST} subordinate ids: files of several owners are written, and "
            f"{'/etc/subuid' if users is None else '/etc/subgid'} gives {_called(caller)} none",
            hint=f"{_remedy(caller)}; or run it with sudo",
        )
    count = min(users[1], groups[1])
    return Ids(ENTERED, ENTERED, count, users[0], enter=(users[0], groups[0]))


def ids_to_look(caller: Caller) -> Ids:
    """Return what the ids of a container are in which something is only looked at: for a caller
    without subordinate ids there is one, his own, in a namespace of its own."""
    try:
        return ids_of(caller, "looking")
    except UsageError:
        return Ids(caller.uid, caller.gid, 1, caller.uid, enter=ALONE)


def inside(uid: int, uid_map: str) -> tuple[int, int] | None:
    """Return first and count of the ids that a process with this id and map has entered by
    ``confine.enter``, None if it has not."""
    match sorted(_rows(uid_map)):
        case [(caller, _, 1), (first, base, count)] if (caller, first) == (uid, ENTERED):
            return base, count
        case _:
            return None


def refused(problem: OSError, switches: Mapping[str, str], what: str) -> UsageError:
    """Return the error for a user namespace that could not be entered.

    ``switches`` are the values of those of ``SWITCHES`` that this kernel has.
    """
    closed = [name for name, value in _SWITCHES.items() if switches.get(name) == value]
    hint = "run it with sudo"
    if closed:
        open_value = {"0": "1", "1": "0"}[_SWITCHES[closed[0]]]
        if closed[0] == "user.max_user_namespaces":
            open_value = "15000"
        hint = f"this machine forbids it to ordinary users: sudo sysctl {closed[0]}={open_value}"
    elif problem.errno == errno.ENOENT or "uidmap" in str(problem):
        hint = "install the package uidmap, whose newuidmap gives a process subordinate ids"
    said = problem.strerror or str(problem)
    return UsageError(f"{what} needs a user namespace: {said}", hint=hint)


def _range(text: str, caller: Caller) -> tuple[int, int] | None:
    """First id and count of the first line that is the caller's and long enough."""
    for line in text.splitlines():
        owner, *numbers = line.split(":")
        if owner not in {caller.name, str(caller.uid)} or len(numbers) != 2:
            continue
        if all(number.isdecimal() for number in numbers) and int(numbers[1]) >= LEAST:
            return int(numbers[0]), int(numbers[1])
    return None


def _called(caller: Caller) -> str:
    return f"the user {caller.name}" if caller.name else f"the user id {caller.uid}"


def _remedy(caller: Caller) -> str:
    if not caller.name:
        return "give the user a name, and with usermod --add-subuids subordinate ids"
    ends = [_FIRST]
    for line in (*caller.subuid.splitlines(), *caller.subgid.splitlines()):
        numbers = line.split(":")[1:]
        if len(numbers) == 2 and all(number.isdecimal() for number in numbers):
            ends.append(int(numbers[0]) + int(numbers[1]))
    span = f"{max(ends)}-{max(ends) + LEAST - 1}"
    return f"sudo usermod --add-subuids {span} --add-subgids {span} {caller.name}"


def _rows(uid_map: str) -> list[tuple[int, int, int]]:
    rows = []
    for line in uid_map.splitlines():
        first, outside, count = (int(word) for word in line.split())
        rows.append((first, outside, count))
    return rows


def _mapped(ids: Ids, uid_map: str) -> bool:
    return any(
        start <= ids.uid and ids.uid + ids.count <= start + count
        for start, _, count in _rows(uid_map)
    )


def not_entered(what: str) -> UsageError:
    """Return the error for an ordinary user whose process cannot do ``what`` as it was started."""
    return UsageError(
        f"{what} gives files to several owners, which this command does not do for ordinary users",
        hint="run it with sudo",
    )
