"""One run of pytest inside a forked worker: chosen tests in a chosen order, recorded if wanted.

When recording, each line knows the tests that came by. What a fixture did that several tests share
(a keyset, a TPM) is said of all tests that use it and not only of the first.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

    import coverage

# The same examples every time, and no search for the smallest one that fails.
hypothesis.settings.register_profile(
    "mutants",
    deadline=None,
    derandomize=True,
    database=None,
    phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
)
FIXTURE = "fixture "
# A test that needs one of these is not cheap: it needs root and a real machine, or boots a guest.
DEAR = ("root", "system", "vm")


class Watch:
    """Keeps order and outcome of the tests, and what each of them came by."""

    def __init__(self, job: dict[str, Any], coverage: coverage.Coverage | None) -> None:
        self._wanted = {name: rank for rank, name in enumerate(job.get("tests", ()))}
        self._known = set(job.get("known", ()))
        self._coverage = coverage
        self._context: list[str] = []
        self._started = 0.0
        self.failed = ""
        self.tests: dict[str, dict[str, Any]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave only what is wanted, and what a change gave a new name."""
        if not self._wanted:
            return
        last = len(self._wanted)
        items[:] = sorted(
            (
                item
                for item in items
                if item.nodeid in self._wanted or item.nodeid not in self._known
            ),
            key=lambda item: self._wanted.get(item.nodeid, last),
        )

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Time the test, and have its lines counted as its own."""
        if self._coverage is None:
            return (yield)
        dear = any(item.get_closest_marker(name) for name in DEAR)
        known: dict[str, Any] = {
            "ok": not dear,
            "fixtures": list(getattr(item, "fixturenames", ())),
        }
        self.tests[item.nodeid] = known
        started = time.monotonic()
        self._enter(item.nodeid)
        try:
            return (yield)
        finally:
            self._leave()
            known["seconds"] = round(time.monotonic() - started, 3)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any]
    ) -> Generator[None, object, object]:
        """Count what a shared fixture does as the fixture's."""
        if self._coverage is None or fixturedef.scope == "function":
            return (yield)
        self._enter(FIXTURE + fixturedef.argname)
        try:
            return (yield)
        finally:
            self._leave()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the first failure, and which tests cannot be counted on."""
        if report.failed and not self.failed:
            self.failed = report.nodeid
        if not report.passed and report.nodeid in self.tests:
            self.tests[report.nodeid]["ok"] = False

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Keep the first file that cannot be read."""
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def _enter(self, name: str) -> None:
        assert self._coverage is not None
        self._context.append(name)
        self._coverage.switch_context(name)

    def _leave(self) -> None:
        assert self._coverage is not None
        self._context.pop()
        self._coverage.switch_context(self._context[-1] if self._context else "")


def run(job: dict[str, Any], scratch: Path) -> dict[str, Any]:
    """Run ``job`` and return what is known then."""
    measured = _measure() if job.get("record") else None
    watch = Watch(job, measured)
    # Plug-ins for several processes and for coverage would do what is done here once more.
    argv = [*job["files"], "-q", f"--basetemp={scratch / 't'}", "--timeout=0"]
    argv += ["-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov"]
    argv += ["--hypothesis-profile=mutants", "--tb=no", "--show-capture=no"]
    argv += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # plug-ins are imported already
    argv += [] if job.get("record") else ["-x"]
    status = int(pytest.main(argv, plugins=[watch]))
    answer: dict[str, Any] = {"ended": "passed" if status in {0, 5} else "failed"}
    answer["failed"] = watch.failed
    if measured is not None:
        measured.stop()
        readable = status in {0, 1, 5}  # otherwise it is not about tests
        answer |= {"readable": readable, "tests": watch.tests, "lines": _lines(measured)}
    return answer


def _measure() -> coverage.Coverage:
    os.environ["COVERAGE_CORE"] = "ctrace"  # the newer one knows no contexts
    import coverage

    measured = coverage.Coverage(
        data_file=None, config_file=False, source=["src", "tests"], messages=False
    )
    measured.start()
    return measured


def _lines(measured: coverage.Coverage) -> dict[str, dict[int, list[str]]]:
    """Return by file and line who came by; a file that was only imported has none."""
    data = measured.get_data()
    top = Path.cwd()
    return {
        Path(name).relative_to(top).as_posix(): {
            line: sorted(set(contexts) - {""})
            for line, contexts in data.contexts_by_lineno(name).items()
            if set(contexts) - {""}
        }
        for name in data.measured_files()
        if data.lines(name)
    }
