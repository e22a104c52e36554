"""Text of strangers, for a terminal or a log: a line can neither move the cursor nor hide a word.

Programs, registries and images say what they like, and a terminal obeys some of it. Whatever is not
printable is shown as the escape that a string of Python has, also what turns the direction of
writing. Lines stay lines; what passed once passes again unchanged.
"""

from __future__ import annotations

from machineos.errors import without_userinfo

_KEPT = frozenset("\n\t")


def printable(text: str) -> str:
    """Return ``text`` with every character quoted that is neither printable nor a line's end."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in _KEPT else _quoted(char) for char in text)


def shown(text: str) -> str:
    """Return ``text`` as it may be shown: printable, and no URL in it with a password."""
    return printable(without_userinfo(text))


def counted(number: int, noun: str) -> str:
    """Return how many there are: ``1 layer``, ``2 layers``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _quoted(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode()
