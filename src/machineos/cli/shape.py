"""What commands print, as values: tables, errors, the folders of a user. Nothing here prints."""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from machineos import errors
from machineos.core.printable import printable
from machineos.errors import (
    DocumentError,
    MachineOSError,
    SeveralError,
    SpaceError,
    UsageError,
    without_userinfo,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


INTERRUPTED = {"error": "Interrupted", "message": "interrupted", "hint": ""}


@dataclass(frozen=True, slots=True)
class Home:
    """Where a user's things are kept; all of it follows the XDG base directory specification."""

    data: Path
    config: Path
    state: Path
    runtime: Path
    cache: Path
    user: Path

    @property
    def keysets(self) -> Path:
        """The folder of keysets, where the predecessor had it."""
        return self.data / "machine" / "trust" / "keys"


def home_of(environ: Mapping[str, str], uid: int, known: str = "") -> Home:
    """Return the folders of the user with this environment; ``known`` is the home in his record.
    Relative ones do not count.

    Raises: UsageError (of whom nothing is known but a number).
    """
    home = environ.get("HOME") or known
    if not home:
        raise UsageError(
            f"HOME is not set, and the system knows no user {uid}",
            hint="set HOME to a folder that is yours",
        )
    user = Path(home)

    def folder(variable: str, default: Path) -> Path:
        value = environ.get(variable, "")
        return Path(value) if value.startswith("/") else default

    return Home(
        data=folder("XDG_DATA_HOME", user / ".local/share"),
        config=folder("XDG_CONFIG_HOME", user / ".config"),
        state=folder("XDG_STATE_HOME", user / ".local/state"),
        runtime=folder("XDG_RUNTIME_DIR", Path(f"/run/user/{uid}")),
        cache=folder("XDG_CACHE_HOME", user / ".cache"),
        user=user,
    )


def json_text(value: object) -> str:
    """Return one JSON document, and no URL in it with a password."""
    return without_userinfo(json.dumps(value, indent=2, sort_keys=False, default=str))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table: each column as wide as its widest cell."""
    widths = [max(len(cell) for cell in cells) for cells in zip(columns, *rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (columns, *rows)
    ]


def error_name(error: MachineOSError) -> str:
    """Return the name of an error in the table of exit codes; what a module made of it for itself
    is its own business."""
    return next(one.__name__ for one in type(error).__mro__ if one.__module__ == errors.__name__)


def error_json(error: MachineOSError) -> dict[str, object]:
    """Return an error as ``--json`` gives it."""
    body: dict[str, object] = {
        "error": error_name(error),
        "message": error.message,
        "hint": error.hint,
    }
    if isinstance(error, DocumentError):
        body["faults"] = [
            {"path": fault.path, "line": fault.line, "message": fault.message}
            for fault in error.faults
        ]
    if isinstance(error, SeveralError):
        body["errors"] = [error_json(one) for one in error.errors]
    return body


def error_text(error: MachineOSError, program: str) -> str:
    """Return an error as a person reads it: what failed, then what to do. It may quote what a
    registry, an image or a program said, so only what can be printed is."""
    text = f"{program}: {error.message}"
    return printable(f"{text}\n{program}: {error.hint}" if error.hint else text)


def refused_by_system(error: OSError) -> MachineOSError:
    """Return what the system refused, in its own words: a folder that may not be written, a name
    that is taken by something else, a disk that is full."""
    name = error.filename
    shown = name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name
    where = f"{shown}: " if isinstance(shown, str) else ""
    text = f"{where}{error.strerror or error}"
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    return SpaceError(text) if full else MachineOSError(text)
