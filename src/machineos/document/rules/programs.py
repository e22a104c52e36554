"""What a program in an image must not ask the kernel for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from machineos.document.rules.rule import Rule
from machineos.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Found = Iterator[tuple[str, str]]

Stack = Literal["executable", "plain", "unsaid"]


class Program(msgspec.Struct, frozen=True):
    """A file that a kernel runs: what it says of its stack, and the width of its machine."""

    path: str
    bits: Literal[32, 64]
    stack: Stack


def _stack(programs: Iterable[Program]) -> Found:
    for program in programs:
        if program.stack == "executable":
            yield "", f"{program.path[:200]!r} wants its stack to be executable"
        elif program.stack == "unsaid" and program.bits == 32:
            # The kernel then lets all memory of it that can be read be executed.
            yield "", f"{program.path[:200]!r} is of 32 bits and does not say what its stack is"


# An image has to be looked into for this. No hook of the kernel is asked when it makes a
# stack, so neither IPE nor MDWE refuses such a program on the machine.
STACK: Rule[Iterable[Program]] = Rule(
    "image-stack",
    "No program of an image has a stack that can be executed.",
    ("publish", "convert", "verify"),
    _stack,
    ArchiveError,
    "link it with `-z noexecstack`, or clear the mark with `execstack -c` or"
    " `patchelf --clear-execstack`",
)
