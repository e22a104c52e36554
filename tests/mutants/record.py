"""What the cheap tests came by: recorded once for each test file, kept until something changes.

A file's record holds while the file, and every module of ours that it made run, is what it was.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mutants.run import FIXTURE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

FORMAT = f"2 {sys.version_info[0]}.{sys.version_info[1]}"


@dataclass
class Records:
    """All records together: durations by test, and tests by file and line."""

    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[str, dict[int, set[str]]] = field(default_factory=dict)
    files: dict[str, list[str]] = field(default_factory=dict)
    # Tests that need root, or did not pass without a mutant either.
    left_out: list[str] = field(default_factory=list)

    def add(self, file: str, record: dict[str, Any]) -> None:
        """Take in the record of one test file."""
        tests = record["tests"]
        self.files[file] = sorted(tests)
        users: dict[str, set[str]] = {}
        for name, known in tests.items():
            if not known["ok"]:
                self.left_out.append(name)
                continue
            self.seconds[name] = known["seconds"]
            users[name] = {name}
            for fixture in known["fixtures"]:
                users.setdefault(FIXTURE + fixture, set()).add(name)
        for path, lines in record["lines"].items():
            mine = self.lines.setdefault(path, {})
            for line, contexts in lines.items():
                found = set().union(*(users.get(context, set()) for context in contexts))
                mine.setdefault(int(line), set()).update(found)

    def tests_of(self, path: str, lines: Iterable[int]) -> set[str]:
        """Return the tests that came by one of ``lines``."""
        known = self.lines.get(path, {})
        return set().union(*(known.get(line, set()) for line in lines))

    def tests_of_module(self, path: str) -> set[str]:
        """Return the tests that came by anything of a module."""
        return set().union(*self.lines.get(path, {}).values())


class Cache:
    """The records of earlier runs, in one file."""

    def __init__(self, top: Path, path: Path) -> None:
        self._top = top
        self._path = path
        self._known: dict[str, Any] = {}
        if path.exists():
            found = json.loads(path.read_text())
            self._known = found["files"] if found["format"] == FORMAT else {}

    def get(self, file: str) -> dict[str, Any] | None:
        """Return the record of a test file, if it holds."""
        record = self._known.get(file)
        if record is None or record["digest"] != self._digest([file, *record["lines"]]):
            return None
        return record  # type: ignore[no-any-return]

    def put(self, file: str, record: dict[str, Any]) -> None:
        """Keep a record."""
        record["digest"] = self._digest([file, *record["lines"]])
        self._known[file] = record

    def save(self) -> None:
        """Write what is known."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(".new")
        temporary.write_text(json.dumps({"format": FORMAT, "files": self._known}))
        temporary.replace(self._path)

    def _digest(self, paths: Iterable[str]) -> str:
        """Return a digest of files, and of every conftest.py, which has a say in all tests."""
        shared = (path.relative_to(self._top) for path in self._top.rglob("tests/**/conftest.py"))
        hasher = hashlib.sha256()
        for path in sorted({*paths, *(one.as_posix() for one in shared)}):
            file = self._top / path
            hasher.update(f"{path} ".encode())
            hasher.update(file.read_bytes() if file.is_file() else b"")
        return hasher.hexdigest()


def cheap_files(top: Path) -> list[str]:
    """Return the files with cheap tests, those of this program left out."""
    found = sorted((top / "tests/unit").rglob("test_*.py"))
    names = [path.relative_to(top).as_posix() for path in found]
    return [name for name in names if not name.startswith("tests/unit/mutants/")]
