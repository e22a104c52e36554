"""A copy of the work tree with an environment of its own: nothing is ever changed in the real one.

Programs that a test starts see the copy too: its ``.venv`` has the interpreter and the libraries of
the real one and, in place of the link to the real sources, one to the copied ones.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path

_LEFT_OUT = frozenset({
    ".git", ".venv", ".cache", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis",
    ".import_linter_cache", "__pycache__", "dist-build", "site",
})  # fmt: skip


class Tree:
    """One copy of ``top`` in the new folder ``root``."""

    def __init__(self, top: Path, root: Path) -> None:
        self.root = root
        self.python = root / ".venv/bin/python"
        shutil.copytree(top, root, symlinks=True, ignore=_ignored)
        self._environment()
        self._changes = 0

    def _environment(self) -> None:
        purelib = Path(sysconfig.get_path("purelib"))
        inside = self.root / ".venv" / purelib.relative_to(sys.prefix)
        inside.mkdir(parents=True)
        for entry in purelib.iterdir():
            if not (entry.suffix == ".pth" and "machineos" in entry.name):
                (inside / entry.name).symlink_to(entry)
        (inside / "machineos.pth").write_text(f"{self.root / 'src'}\n")
        self.python.parent.mkdir()
        here = Path(sys.prefix)
        for entry in (here / "bin").iterdir():
            self._program(entry, self.python.with_name(entry.name))
        shutil.copyfile(here / "pyvenv.cfg", self.root / ".venv/pyvenv.cfg")

    def _program(self, entry: Path, copy: Path) -> None:
        if entry.is_symlink():
            copy.symlink_to(entry.resolve() if entry.name == "python" else entry.readlink())
            return
        data = entry.read_bytes()
        shebang = f"#!{entry.parent}/python".encode()
        if data.startswith(shebang):
            copy.write_bytes(data.replace(shebang, f"#!{self.python.parent}/python".encode(), 1))
            copy.chmod(0o755)
        else:
            copy.symlink_to(entry)

    def write(self, path: str, data: bytes) -> None:
        """Replace a file. Its time is one that no compiled file of an earlier change has."""
        target = self.root / path
        original = target.with_name(f"{target.name}.original")
        if not original.exists():
            target.rename(original)
        target.write_bytes(data)
        self._changes += 1
        os.utime(target, (1_000_000_000 + self._changes,) * 2)

    def restore(self, path: str) -> None:
        """Put a file back as it was, with its time."""
        target = self.root / path
        target.with_name(f"{target.name}.original").replace(target)


def _ignored(_folder: str, names: list[str]) -> set[str]:
    return set(names) & _LEFT_OUT
