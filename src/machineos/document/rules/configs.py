"""What an image's configuration may ask for, if a container is to be made from it.

Follows the OCI image specification, "Image Configuration". Values go into files of other programs
later; each of those has its own gate for what may stand in it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from machineos.document.model.image import User
from machineos.document.model.limits import MAX_USER, MAX_WORDS
from machineos.document.rules.rule import Rule
from machineos.errors import ArchiveError
from machineos.oci.model.architecture import architecture

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from machineos.document.model.image import Platform, Run
    from machineos.document.rules.rule import Gate

    Found = Iterator[tuple[str, str]]

_NUMBER = re.compile(r"[0-9]{1,5}")
_SIGNAL = re.compile(r"SIG[A-Z0-9+-]{1,12}|[0-9]{1,2}")
_USER = re.compile(r"([^:]*)(?::([^:]+))?")
# An image that is converted may be one that is only mounted: it needs no command.
_RUN: tuple[Gate, ...] = ("publish", "verify", "mosd")
_ANY: tuple[Gate, ...] = (*_RUN, "convert")


class Account(msgspec.Struct, frozen=True):
    """A user as a configuration names it, and the files of the image that may know it."""

    text: str
    passwd: bytes | None
    group: bytes | None


class Built(msgspec.Struct, frozen=True):
    """What an image says that it was built for (None: nothing), and what it has to run on."""

    os: str | None
    architecture: str | None
    wanted: Platform


def is_plain_path(path: str) -> bool:
    """Whether ``path`` is absolute, without ``.`` and ``..``, and can be printed."""
    names = path.split("/")
    return path.startswith("/") and not {".", ".."} & set(names) and path.isprintable()


def _command(run: Run) -> Found:
    if not run.argv or not run.argv[0]:
        yield "config.Entrypoint", "is empty, and so is Cmd: nothing to run"


def _words(run: Run) -> Found:
    if len(run.argv) > MAX_WORDS or len(run.env or ()) > MAX_WORDS:
        yield "config", f"has more than {MAX_WORDS} words"


def _text(run: Run) -> Found:
    for word in (*run.argv, *(run.env or ()), run.user, run.folder):
        if "\0" in word:
            yield "config", f"{word[:80]!r} is not text for a command line"


def _env(run: Run) -> Found:
    for index, entry in enumerate(run.env or ()):
        name, equals, _ = entry.partition("=")
        if not equals or not name:
            yield f"config.Env[{index}]", f"{entry[:80]!r} is not NAME=VALUE"


def _user(run: Run) -> Found:
    match = _USER.fullmatch(run.user)
    parts = match.groups() if match is not None else ()
    if match is None or any(part and _too_high(part) for part in parts):
        message = f"{run.user[:80]!r} is not a user and group that an image can have"
        yield "config.User", message


def _too_high(part: str) -> bool:
    return part.isascii() and part.isdigit() and _number(part) is None


def find_user(account: Account) -> User | None:
    """Return whom an account means, by the image's own files, None when they do not know it.

    "" is root; a number needs no entry.
    """
    who, colon, group = account.text.partition(":")
    who = who or "0"
    row = next((row for row in _table(account.passwd, 7) if who in {row[0], row[2]}), None)
    uid, home = _number(who), "/"
    if row is not None:
        uid = _number(row[2]) if uid is None else uid
        home = row[5] if is_plain_path(row[5]) else "/"
    found = _primary(row) if not colon else _group(group, account.group)
    return None if uid is None or found is None else User(uid, found, home)


def _primary(row: list[str] | None) -> int | None:
    return 0 if row is None else _number(row[3])


def _group(text: str, group: bytes | None) -> int | None:
    number = _number(text)
    if number is not None:
        return number
    row = next((row for row in _table(group, 4) if row[0] == text), None)
    return None if row is None else _number(row[2])


def _table(data: bytes | None, columns: int) -> list[list[str]]:
    lines = (data or b"").decode("utf-8", "replace").splitlines()
    rows = [line.split(":") for line in lines if not line.startswith("#")]
    return [row for row in rows if len(row) == columns and row[0]]


def _number(text: str) -> int | None:
    if not _NUMBER.fullmatch(text):
        return None
    return int(text) if int(text) <= MAX_USER else None


def _unknown(account: Account) -> Found:
    if find_user(account) is None:
        yield "config.User", f"{account.text[:80]!r} is not a user and group of the image"


def _files(problems: Sequence[str]) -> Found:
    for problem in problems:
        if problem:
            yield "", problem


def _platform(built: Built) -> Found:
    for key, said, wanted in zip(
        ("os", "architecture"), (built.os, built.architecture), built.wanted, strict=True
    ):
        if said and architecture(said) != wanted:
            yield key, f"is {said[:40]!r}, not {wanted}"


def _folder(run: Run) -> Found:
    if run.folder and not is_plain_path(run.folder):
        yield "config.WorkingDir", f"{run.folder[:80]!r} is not a plain absolute path"


def _signal(run: Run) -> Found:
    if run.signal and not _SIGNAL.fullmatch(run.signal):
        yield "config.StopSignal", f"{run.signal[:40]!r} is not a signal"


COMMAND: Rule[Run] = Rule("config-command", "A container has a command.", _RUN, _command)
RULES: tuple[Rule[Run], ...] = (
    COMMAND,
    Rule("config-words", f"Command and environment have at most {MAX_WORDS} words.", _ANY, _words),
    Rule("config-text", "No word of them holds a zero byte.", _ANY, _text),
    Rule("config-env", "An entry of the environment is NAME=VALUE.", _ANY, _env),
    Rule("config-user", "A user is a name or a number up to 65535, a group too.", _ANY, _user),
    Rule("config-folder", "A working folder is a plain absolute path.", _ANY, _folder),
    Rule("config-signal", "A signal to stop with is one that has a name or number.", _ANY, _signal),
)

PLATFORM: Rule[Built] = Rule(
    "config-platform", "An image is for the machine that is to run it.", _ANY, _platform
)
# An image has to be looked into for these. Of each file that knows users: why it cannot be read,
# empty when it can or is not there.
USER_FILES: Rule[Sequence[str]] = Rule(
    "config-user-files",
    "What an image says of its users is in plain files.",
    ("publish", "verify", "mosd"),
    _files,
    ArchiveError,
)
USER_KNOWN: Rule[Account] = Rule(
    "config-user-known",
    "An image knows the user that its command runs as.",
    ("publish", "verify", "mosd"),
    _unknown,
    hint="use numbers, or add them to the image's /etc/passwd and /etc/group",
)
