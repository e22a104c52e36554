"""Completion in bash, where a word may have a colon in it.

bash takes ``KEYSET:PROJECT`` and ``--option=VALUE`` apart before it asks, and puts the answer in
the place of the last piece alone.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from click.shell_completion import BashComplete, add_completion_class, split_arg_string

if TYPE_CHECKING:
    from collections.abc import Sequence

    from click.shell_completion import CompletionItem


class Bash(BashComplete):
    """click's, with words put together again."""

    _cut = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the one that is begun, and that."""
        cword = int(os.environ["COMP_CWORD"])
        given = split_arg_string(os.environ["COMP_WORDS"])[: cword + 1]
        given += [""] * (cword + 1 - len(given))
        *args, begun = together(given)[1:]
        self._cut = begun[: begun.rfind(":") + 1]
        return args, begun

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """Return the line for an item: what is to stand in place of the last piece."""
        return f"{item.type},{str(item.value).removeprefix(self._cut)}"


def together(pieces: Sequence[str]) -> list[str]:
    """Return the words that bash has taken apart at colons, and at the ``=`` of a long option."""
    words: list[str] = []
    glued = False
    for piece, before in zip(pieces, ("", *pieces), strict=False):
        if piece == "=" and words and words[-1].startswith("--"):
            words.append("")
            glued = True
        elif words and (glued or (set(piece) == {":"}) or (set(before) == {":"})):
            words[-1] += piece
            glued = False
        else:
            words.append(piece)
    return words


def register() -> None:
    """Have click take it instead of its own."""
    add_completion_class(Bash)
