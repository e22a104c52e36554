"""The quoting of unit files: systemd.syntax(7), systemd.service(5) "Command lines". Pure.

Every word is written in double quotes with C escapes for all that is not printable, percent signs
doubled, and the command has the prefix ``:``, so that systemd substitutes nothing in words that
came from an image.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from machineos.errors import ToolError

if TYPE_CHECKING:
    from collections.abc import Sequence

# systemd refuses lines of 1 MiB; no honest command comes near.
MAX_COMMAND = 256 << 10
_ESCAPES = {"\\": "\\\\", '"': '\\"', "%": "%%", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
_SPECIAL = re.compile(r"[^ !#$&-\[\]-~]")


def quote(word: str) -> str:
    """Return ``word`` as one word of a command line. Raises: ToolError (zero byte, not UTF-8)."""
    try:
        word.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ToolError(f"{word[:80]!r} is not text that a unit file can hold") from error
    if "\0" in word:
        raise ToolError(f"{word[:80]!r} holds a zero byte")
    return '"' + _SPECIAL.sub(lambda found: _escape(found[0]), word) + '"'


def exec_line(argv: Sequence[str]) -> str:
    """Return the value of ExecStart= for exactly this argument list. Raises: ToolError."""
    program, *rest = argv
    line = " ".join([f":{program}", *(quote(word) for word in rest)])
    if len(line.encode()) > MAX_COMMAND:
        raise ToolError(f"{program}: its command line is longer than {MAX_COMMAND} bytes")
    return line


def _escape(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
