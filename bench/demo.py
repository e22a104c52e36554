"""``make demo`` in a fresh clone: cold, and again with the machine stopped in between."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measure import Sample, timed
from bench.report import Check, Row
from bench.workspace import TOP
from machineos.core.run import run
from machineos.errors import MachineOSError

if TYPE_CHECKING:
    from bench.workspace import Bench

_COLD, _AGAIN = 15.0, 5.0
_TIMEOUT = 3600.0
_REACH = ("SSL_CERT_", "PIP_", "UV_", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
_FOLDERS = {
    "XDG_DATA_HOME": "data",
    "XDG_CONFIG_HOME": "config",
    "XDG_STATE_HOME": "state",
    "XDG_CACHE_HOME": "cache",
    "XDG_RUNTIME_DIR": "run",
}


def demo(bench: Bench) -> Row:
    """Run it twice. What is committed is what is measured. Raises: ToolError."""
    with tempfile.TemporaryDirectory(prefix="machineos-bench-", ignore_cleanup_errors=True) as name:
        clone = Path(name) / "clone"
        run(["git", "clone", "--quiet", TOP, clone], timeout=300.0)
        try:
            cold = _run(bench, clone)
            bench.say(f"  cold: {cold.wall:.0f} s")
            _machine(clone, "stop", "demo")
            again = _run(bench, clone)
            bench.say(f"  again: {again.wall:.0f} s")
        finally:
            if (clone / ".cache/demo/config/machine").exists():
                _machine(clone, "delete", "--force", "demo")
            shutil.rmtree(clone, ignore_errors=True)
    return Row(
        "demo",
        "`make demo` on 2 cores without KVM, cold and again",
        "a limit",
        (
            Check("cold", cold.wall / 60, _COLD, " min"),
            Check("again", again.wall / 60, _AGAIN, " min"),
        ),
        notes=(
            "in a fresh clone of the last commit: no Python environment, no keys, no images; the "
            "Debian packages of the tools were installed on this machine already",
            "again: with the machine stopped in between, so that it boots again",
        ),
        raw={"cold": cold.wall, "again": again.wall},
    )


def _run(bench: Bench, clone: Path) -> Sample:
    # How this machine reaches its package registries is the only thing that comes from outside.
    env = {name: value for name, value in os.environ.items() if name.startswith(_REACH)}
    return timed([clone / "scripts/demo"], log=bench.log, env=env, cwd=clone, timeout=_TIMEOUT)


def _machine(clone: Path, *arguments: str) -> None:
    env = {name: str(clone / ".cache/demo" / part) for name, part in _FOLDERS.items()}
    try:
        run([clone / ".venv/bin/machine", *arguments], timeout=300.0, env=env)
    except MachineOSError:
        if arguments[0] != "delete":  # a run that failed early has no machine to delete
            raise
