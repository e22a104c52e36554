"""The appliance of the guest tests: built once, booted once, saved once.

MACHINEOS_TEST_CACHE says where it is kept (default: .cache/test of this checkout);
MACHINEOS_TEST_REUSE=1 keeps using the one that is there although its inputs have changed. Of two
processes that share the tests (pytest-xdist) each has its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from machineos.core.run import run
from machineos.vm.provider import StartOptions
from machineos.vm.running import RunningMachine
from vm.appliance import CLOCK, DISK, TOP, Bench, open_bench
from vm.attacks import (
    EMULATION,
    RUNS,
    Ends,
    Tries,
    Victim,
    firmware_tries,
    make_victim,
    verdict,
)
from vm.guest import BOOT, PROBE, Boot, FileServer, Guest
from vm.unlocked import unlock
from waiting import PATIENCE

READY = "ready"
MOST_BOOTS = 2  # in one test; what needs more is a proof
MARKS = (
    pytest.mark.vm,
    pytest.mark.root,
    pytest.mark.tool("qemu-system-x86_64"),
    pytest.mark.tool("swtpm"),
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test here is one with guests."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            for mark in MARKS:
                item.add_marker(mark)


@pytest.fixture(scope="session")
def bench() -> Iterator[Bench]:
    """The built and installed appliance."""
    folder = Path(os.environ.get("MACHINEOS_TEST_CACHE") or TOP / ".cache/test")
    folder = folder / os.environ.get("PYTEST_XDIST_WORKER", "")
    runtime = Path(tempfile.mkdtemp(prefix="mt-"))
    try:
        yield open_bench(folder, runtime)
    finally:
        shutil.rmtree(runtime, ignore_errors=True)


@pytest.fixture(scope="session")
def files() -> Iterator[FileServer]:
    """The web server that gives guests their files."""
    server = FileServer()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def boots() -> list[str]:
    """Every start of a machine of the bench, by its name."""
    return []


@pytest.fixture(autouse=True)
def _few_boots(
    request: pytest.FixtureRequest, boots: list[str], record_property: Callable[[str, object], None]
) -> Iterator[None]:
    """A test that boots more than twice costs minutes: it is a proof, and run as one."""
    before = len(boots)
    yield
    count = len(boots) - before
    record_property("boots", count)
    if request.node.get_closest_marker("proof") is None:
        assert count <= MOST_BOOTS, "mark it as a proof"


@pytest.fixture(scope="session")
def boot(bench: Bench, files: FileServer, boots: list[str]) -> Boot:
    """Start a machine of the bench for the length of a block."""

    @contextmanager
    def booted(name: str, *, snapshot: str = "", no_reboot: bool = False) -> Iterator[Guest]:
        if not snapshot:
            boots.append(name)
        port = bench.store.load(name).config.nics[0].ports[0].host.port
        options = StartOptions(snapshot=snapshot, no_reboot=no_reboot)
        with RunningMachine(bench.provider, name, CLOCK, options=options) as vm:
            guest = Guest(vm, files, port, bench.store.paths(name).console)
            try:
                yield guest
            finally:
                guest.close()

    return booted


@pytest.fixture(scope="session")
def _live(bench: Bench, boot: Boot) -> Iterator[Guest]:
    """A booted appliance whose service answers, saved in that state, also for the next run.

    It has two more disks, for what would be installed on them: one that fits, one too small.
    """
    name = "live"
    stamp = bench.folder / "live-is-saved"
    saved = stamp.is_file() and name in bench.store.names()
    if not saved:
        bench.clone(name)
        bench.add_disk(name, "spare", DISK)
        bench.add_disk(name, "small", 1 << 30)
    with boot(name, snapshot=READY if saved else "") as guest:
        if not saved:
            settle(guest)
            guest.vm.save(READY)
            stamp.touch()
        yield guest


def settle(guest: Guest) -> None:
    """Wait until all of a booted appliance runs, and its shell is at hand."""
    guest.wait_answer()
    guest.wake()
    guest.wait_until("mosctl status --json | grep -q '\"settled\": true'")
    # What mosd does last, which would come in the middle of a test.
    guest.wait_until("test -e /run/systemd/journal/flushed")
    # Or systemd says on the console, in the middle of an answer, how the boot goes on.
    guest.wait_until("systemctl is-system-running | grep -qE '^(running|degraded)$'")


@pytest.fixture
def live(_live: Guest) -> Guest:
    """The running appliance, for tests that leave it as it was."""
    return _live


@pytest.fixture
def fresh(_live: Guest) -> Iterator[Guest]:
    """The running appliance, for tests that change it: afterwards it is put back."""
    yield _live
    _live.vm.load(READY)


@pytest.fixture(scope="module")
def spoiled(_live: Guest) -> Iterator[Guest]:
    """The running appliance, for a module that changes it: put back when the module is over."""
    yield _live
    _live.vm.load(READY)


@pytest.fixture(scope="session")
def _unlocked(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a copy of the appliance whose boot image locks nothing."""
    made = make_victim(bench, "unlocked")
    unlock(made, bench, tmp_path_factory.mktemp("unlocked"))
    yield made.name
    bench.discard(made.name)


@pytest.fixture(scope="module")
def unlocked(boot: Boot, _unlocked: str) -> Iterator[Guest]:
    """The control of the lock: the same appliance with nothing locked, running with its service.

    It is booted for each module that asks, so that no third machine runs beside all that follow.
    """
    with boot(_unlocked) as guest:
        settle(guest)
        yield guest


@pytest.fixture
def victim(bench: Bench) -> Iterator[Victim]:
    made = make_victim(bench)
    yield made
    bench.discard(made.name)


@pytest.fixture
def ends(boot: Boot, victim: Victim) -> Ends:
    """Boot the victim and return how that was decided. Whatever it was, nothing runs afterwards,
    and a refused machine has not changed its disk."""
    return Ending(boot, victim)


class Ending:
    """How a boot of the victim ends. One whose kernel the emulation killed is repeated, twice."""

    def __init__(self, boot: Boot, victim: Victim) -> None:
        self._boot = boot
        self._victim = victim
        self.text = ""

    def __call__(self) -> str:
        for _ in range(2):
            words = self._once()
            if EMULATION not in self.text:
                return words
        return self._once()

    def _once(self) -> str:
        before = content_of(self._victim.disk)
        with self._boot(self._victim.name, no_reboot=True) as guest:
            words = verdict(guest)
            if words.startswith("BOOT FAILED"):
                guest.vm.wait_console("restarting in", BOOT)
                assert guest.answer(PROBE) == 0
            self.text = guest.vm.console_text
        if words != RUNS and EMULATION not in self.text:
            assert content_of(self._victim.disk) == before, "a refused boot has written to the disk"
        return words


@pytest.fixture
def tries(boot: Boot, victim: Victim) -> Tries:
    """Boot the victim to the firmware's end and return what it tried to start, each with how that
    ended."""

    def booted() -> list[tuple[str, str]]:
        with boot(victim.name, no_reboot=True) as guest:
            found = firmware_tries(guest)
            assert "HAS RUN" not in guest.vm.console_text
        return found

    return booted


def content_of(path: Path) -> str:
    """Return a digest over the parts of a sparse file that are not holes."""
    data = run(["qemu-img", "map", "--output=json", "-f", "raw", path], timeout=PATIENCE).stdout
    hasher = hashlib.sha256(b"")
    with path.open("rb") as file:
        for part in json.loads(data):
            if part["data"] and not part["zero"]:
                file.seek(part["start"])
                left = part["length"]
                while left and (piece := file.read(min(left, 1 << 20))):
                    if piece.strip(b"\0"):
                        hasher.update(b"%d " % (file.tell() - len(piece)) + piece)
                    left -= len(piece)
    return hasher.hexdigest()
