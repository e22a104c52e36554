"""Marks: a test that needs a tool or root skips on a laptop and fails in CI.

``system`` says that it needs root, too.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings

from machineos.core import run
from vectors.certificates import KEYS

# A busy machine fails no test; what hangs runs into the time limit of scripts/unit.
settings.register_profile("house", deadline=None)
settings.load_profile("house")


def pytest_configure() -> None:
    """Keep the RSA keys that tests make for all processes of a user, and for the next run.

    In a tree that is another user's, each process makes its own. Whoever started the tests in the
    background may have had them ignore SIGINT; here Ctrl-C is what it is.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if KEYS not in os.environ:
        folder = Path(__file__).resolve().parents[1] / f".cache/test-keys-{os.geteuid()}"
        with suppress(PermissionError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.environ[KEYS] = str(folder)


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--write-golden``: golden files say what the code says; look at the difference in git."""
    parser.addoption("--write-golden", action="store_true", help="write golden files anew")


def pytest_runtest_setup(item: pytest.Item) -> None:
    missing = [
        f"{mark.args[0]} is not installed"
        for mark in item.iter_markers("tool")
        if run.find(mark.args[0]) is None
    ]
    root = item.get_closest_marker("root") or item.get_closest_marker("system")
    if root and os.geteuid() != 0:
        missing.append("root is needed")
    if missing:
        pytest.skip("; ".join(missing))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Whatever the reason: what would be skipped fails in CI."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"not run, which CI does not allow: {why}"
    return report
