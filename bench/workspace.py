"""Where the measurements work: one folder under ``.cache``, keys of their own, the machine's facts.

Nothing of the user's is touched: every command of the product gets its folders through the XDG
variables. What is slow to make (keys, images, an installed machine) is kept between runs.
"""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.report import Facts
from machineos.cli.shape import Home, home_of
from machineos.core import run as door
from machineos.core.clock import SystemClock
from machineos.trust.keys.keyset import find_project

if TYPE_CHECKING:
    from collections.abc import Callable

    from machineos.trust.keys.keyset import Keyset, Project

TOP = Path(__file__).resolve().parent.parent
KEYSET, PROJECT = "bench", "bench:default"
_FOLDERS = {
    "XDG_DATA_HOME": "data",
    "XDG_CONFIG_HOME": "config",
    "XDG_STATE_HOME": "state",
    "XDG_CACHE_HOME": "cache",
    "XDG_RUNTIME_DIR": "run",
}
_VERSIONS = (
    ("skopeo", ("skopeo", "--version")),
    ("umoci", ("umoci", "--version")),
    ("buildah", ("buildah", "--version")),
    ("mksquashfs", ("mksquashfs", "-version")),
    ("veritysetup", ("veritysetup", "--version")),
    ("QEMU", ("qemu-system-x86_64", "--version")),
    ("docker-registry", ("docker-registry", "--version")),
)


@dataclass(frozen=True, slots=True)
class Bench:
    """One run of the measurements. ``quick`` wants small sizes, ``pairs`` is how many pairs,
    ``warm`` throws one more away before them."""

    folder: Path
    quick: bool
    pairs: int
    warm: bool
    say: Callable[[str], None]

    @property
    def env(self) -> dict[str, str]:
        """The variables that send the product's commands into our folder, and let the interpreter
        keep what it compiled: a warm command is one whose modules are."""
        folders = {name: str(self.folder / part) for name, part in _FOLDERS.items()}
        return {**folders, "PYTHONDONTWRITEBYTECODE": ""}

    @property
    def home(self) -> Home:
        """The product's folders."""
        return home_of(door.environment(self.env), os.getuid())

    @property
    def log(self) -> Path:
        """Where the output of what is measured goes."""
        return self.folder / "last.log"

    def prepare(self) -> None:
        """Make the folders."""
        for part in _FOLDERS.values():
            (self.folder / part).mkdir(parents=True, exist_ok=True, mode=0o700)

    def fresh(self, name: str) -> Path:
        """Return the path of an output that does not exist: what was there is removed."""
        path = self.folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        return path

    def ours(self, *argv: str | Path) -> list[str]:
        """Return the command line of one of the product's commands."""
        return [str(TOP / ".venv/bin" / str(argv[0])), *map(str, argv[1:])]

    def command(self, *argv: str | Path, timeout: float = 3600.0, cwd: Path | None = None) -> str:
        """Run one of the product's commands, not measured, and return what it printed."""
        return door.run(self.ours(*argv), timeout=timeout, env=self.env, cwd=cwd).text

    def keys(self) -> tuple[Keyset, Project]:
        """Return our keyset and project, made when they are not there yet."""
        if not (self.home.keysets / KEYSET).is_dir():
            self.say("  (making keys)")
            self.command("trust", "keyset", "add", KEYSET, "--org", "machineOS bench")
        return find_project(self.home.keysets, PROJECT)


def load() -> str:
    """Return the load average as text."""
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


def facts(before: str, after: str, bench: Bench) -> Facts:
    """Return what the reader has to know about the machine and the tools."""
    values = {
        "date": SystemClock().now().strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _first("git", "-C", str(TOP), "describe", "--always", "--dirty"),
        "processors": f"{os.cpu_count()} x {_processor()}",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') >> 20} MiB",
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "?"),
        "Python": platform.python_version(),
        "pairs per row": f"{bench.pairs}, {'after a warm-up' if bench.warm else 'no warm-up'}",
        "load average before": before,
        "load average after": after,
    }
    if max(float(before.split()[0]), 0.0) > (os.cpu_count() or 1) / 2:
        values["busy"] = "yes: other work ran on this machine before the run began"
    values |= {name: _first(*argv) for name, argv in _VERSIONS if door.find(argv[0])}
    return Facts(values)


def _first(*argv: str) -> str:
    result = door.run(list(argv), timeout=120.0, check=False)
    lines = (result.stdout + result.stderr).decode("utf-8", "replace").splitlines()
    return lines[0].strip() if lines else "?"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
