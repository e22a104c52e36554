"""Values for the ``${{NAME}}`` of a recipe: put in before anything else is read of it. Pure.

A default may hold variables of its own, as in ``${{A:oci:${{B}}:x}}``; it counts, and they need a
value, where ``A`` has none. What a value says is never looked at again. Invariant: the result is
no longer than ``MAX_RECIPE``, however often a value is asked for.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from machineos.core import yamldoc
from machineos.errors import DocumentError, Fault

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_RECIPE: Final = 1 << 20
_MAX_DEPTH = 8
_MAX_FAULTS = 50
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TOKEN = re.compile(r"\$\{\{|\}\}|\n")
# Places of stacker's insides, which we do not have.
_OURS = "has no value: stages are named stacker://STAGE/PATH, files by their path below the recipe"
_INSTEAD = {
    "STACKER_ROOTFS_DIR": _OURS,
    "STACKER_STACKER_DIR": _OURS,
    "STACKER_WORK_DIR": _OURS,
}


def substitute(text: str, values: Mapping[str, str], *, name: str) -> str:
    """Replace every ``${{VAR}}`` and ``${{VAR:default}}`` of ``text``.

    Lines stay where they are. Raises: DocumentError with every variable that has no value.
    """
    return _Substitution(text, values, name).result()


def parse_values(data: bytes, *, name: str) -> dict[str, str]:
    """Return the values in ``data``, the YAML mapping of ``--substitute-file``.

    Raises: DocumentError, also for what is not the name of a variable.
    """
    faults: list[Fault] = []
    node = yamldoc.parse_yaml(data, name=name)
    values: dict[str, str] | None = yamldoc.decode(node, dict[str, str], faults)
    for key in values or ():
        if not _NAME.fullmatch(key):
            line = yamldoc.line_of(node, key)
            faults.append(Fault(key[:80], line, "is not the name of a variable"))
    if faults or values is None:
        raise DocumentError(name, faults)
    return values


class _Substitution:
    def __init__(self, text: str, values: Mapping[str, str], name: str) -> None:
        self._text = text
        self._values = values
        self._name = name
        self._ends = _ends(text)
        self._size = 0
        self._faults = [
            Fault(variable, 0, "its value holds a line break or a control character")
            for variable, value in values.items()
            if not value.isprintable()
        ]

    def result(self) -> str:
        pieces: list[str] = []
        self._fill(0, len(self._text), pieces, depth=0)
        if self._faults:
            raise DocumentError(self._name, self._faults)
        return "".join(pieces)

    def _fill(self, start: int, end: int, pieces: list[str], *, depth: int) -> None:
        """Add what stands between two places of the text, its variables replaced."""
        while True:
            opened = self._text.find("${{", start, end)
            if opened < 0:
                self._add(self._text[start:end], pieces)
                return
            closed = self._ends.get(opened)
            if closed is None:  # nothing ends it on its line: it is no variable
                self._add(self._text[start : opened + 3], pieces)
                start = opened + 3
                continue
            self._add(self._text[start:opened], pieces)
            self._variable(opened + 3, closed, pieces, depth=depth)
            start = closed + 2

    def _variable(self, start: int, end: int, pieces: list[str], *, depth: int) -> None:
        inside = self._text[start:end]
        variable, colon, _ = inside.partition(":")
        named = variable.strip()
        if named in self._values:
            self._add(self._values[named], pieces)
        elif not _NAME.fullmatch(named):
            self._fault(named, start, "is not a variable name")
        elif not colon:
            message = _INSTEAD.get(named, "has no value; give one with --substitute")
            self._fault(named, start, message)
        elif depth == _MAX_DEPTH:
            self._fault(named, start, "is nested too deeply")
        else:
            self._fill(start + len(variable) + 1, end, pieces, depth=depth + 1)

    def _add(self, piece: str, pieces: list[str]) -> None:
        self._size += len(piece)
        if self._size > MAX_RECIPE:
            fault = Fault("", 0, f"is larger than {MAX_RECIPE} bytes with its values")
            raise DocumentError(self._name, [fault])
        pieces.append(piece)

    def _fault(self, variable: str, where: int, message: str) -> None:
        line = self._text.count("\n", 0, where) + 1
        self._faults.append(Fault(variable[:80], line, message))
        if len(self._faults) >= _MAX_FAULTS:
            raise DocumentError(self._name, self._faults)


def _ends(text: str) -> dict[int, int]:
    """Where each ``${{`` of the text ends: at the ``}}`` on its line that is its own."""
    ends: dict[int, int] = {}
    opened: list[int] = []
    for token in _TOKEN.finditer(text):
        if token[0] == "${{":
            opened.append(token.start())
        elif token[0] == "\n":
            opened.clear()
        elif opened:
            ends[opened.pop()] = token.start()
    return ends
