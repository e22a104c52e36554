"""Marks: a test that needs a tool or root skips on a laptop and fails in CI."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

from machineos.core import run

# A busy machine fails no test; what hangs runs into the time limit of scripts/unit.
settings.register_profile("house", deadline=None)
settings.load_profile("house")


def pytest_runtest_setup(item: pytest.Item) -> None:
    missing = [
        f"{mark.args[0]} is not installed"
        for mark in item.iter_markers("tool")
        if run.find(mark.args[0]) is None
    ]
    if item.get_closest_marker("root") and os.geteuid() != 0:
        missing.append("root is needed")
    if not missing:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"would be skipped, which CI does not allow: {'; '.join(missing)}")
    pytest.skip("; ".join(missing))
