"""What a machine may have stored of itself: the documents it runs and the ids of their groups."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec

from machineos.core.idrange import FIRST_GUEST, LAST_ID, RANGE, needs_range
from machineos.core.word import DocumentId
from machineos.document.model.limits import MAX_MANIFESTS
from machineos.document.model.names import GroupName
from machineos.document.rules.rule import Rule
from machineos.errors import ConflictError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from machineos.document.rules.rule import Gate

    Found = Iterator[tuple[str, str]]

_STORED: tuple[Gate, ...] = ("boot",)
_GIVEN: tuple[Gate, ...] = ("install", "boot")


class Stored(msgspec.Struct, frozen=True):
    """What the system file says: documents in order, then (group, first id) of each range."""

    manifests: Sequence[str]
    ranges: Sequence[tuple[str, int]]


class Given(msgspec.Struct, frozen=True):
    """The first id of the range of a group, -1 when it has none."""

    group: str
    first: int


def _count(stored: Stored) -> Found:
    if not 1 <= len(stored.manifests) <= MAX_MANIFESTS:
        yield "manifests", f"has not between 1 and {MAX_MANIFESTS} entries"


def _name(stored: Stored) -> Found:
    for index, text in enumerate(stored.manifests):
        problem = DocumentId.problem(text)
        if problem:
            yield f"manifests[{index}]", problem


def _once(stored: Stored) -> Found:
    for index, text in enumerate(stored.manifests):
        if text in stored.manifests[:index]:
            yield f"manifests[{index}]", "is there twice"


def _group(stored: Stored) -> Found:
    for index, (name, _) in enumerate(stored.ranges):
        problem = GroupName.problem(name)
        if not problem and not needs_range(name):
            problem = f"{name!r} means that there are no own ids"
        if problem:
            yield f"uidmaps[{index}].idmap-name", problem


def _group_once(stored: Stored) -> Found:
    names = [name for name, _ in stored.ranges]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield f"uidmaps[{index}].idmap-name", f"{name[:80]!r} is there twice"


def _inside(stored: Stored) -> Found:
    for index, (_, first) in enumerate(stored.ranges):
        if not FIRST_GUEST <= first <= LAST_ID - RANGE + 1:
            message = f"id range {first} is outside {FIRST_GUEST} to {LAST_ID}"
            yield f"uidmaps[{index}].hostid", message


def _apart(stored: Stored) -> Found:
    for low, high in pairwise(sorted(first for _, first in stored.ranges)):
        if high - low < RANGE:
            yield "uidmaps", f"id ranges {low} and {high} overlap"


def _free(given: Given) -> Found:
    if given.first < 0:
        yield "uidmaps", f"no id range is free for group {given.group!r:.80}"


def _given(given: Given) -> Found:
    if given.first < 0:
        yield "uidmaps", f"group {given.group!r:.80} has no id range"


RANGES: tuple[Rule[Stored], ...] = (
    Rule(
        "id-range-inside",
        "A range of ids is above the host's own and below the last.",
        _STORED,
        _inside,
        ConflictError,
    ),
    Rule("id-range-apart", "No two groups share an id.", _STORED, _apart, ConflictError),
)
COUNT: Rule[Stored] = Rule(
    "system-count", f"A machine runs 1 to {MAX_MANIFESTS} documents.", _GIVEN, _count
)
FREE: Rule[Given] = Rule(
    "id-range-free", "There is a range for every group.", ("install",), _free, ConflictError
)
GIVEN: Rule[Given] = Rule(
    "id-range-given", "Every group has a range.", ("install",), _given, ConflictError
)
RULES: tuple[Rule[Stored], ...] = (
    COUNT,
    Rule("system-document", "A document is named by its sha256.", _STORED, _name),
    Rule("system-document-once", "A document counts once.", _STORED, _once),
    Rule("system-group", "A range belongs to a group that needs one.", _STORED, _group),
    Rule("system-group-once", "A group has one range.", _STORED, _group_once),
    *RANGES,
)
