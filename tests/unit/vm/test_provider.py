"""What every provider promises: the one in memory that tests run on, and QEMU itself.

The guest is a few bytes (``fakes/tiny_guest``), so a QEMU case takes less than a second.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes.machines import MemoryProvider
from fakes.tiny_guest import tiny_machine
from machineos.core.clock import SystemClock
from machineos.errors import ConflictError, MachineError, MissingError, UsageError
from machineos.host.virt.qemu import PROGRAM
from machineos.vm.model import Machine
from machineos.vm.provider import (
    Left,
    Provider,
    StartOptions,
    State,
    require_running,
)
from machineos.vm.providers.qemu import QemuProvider
from machineos.vm.running import RunningMachine
from machineos.vm.store import MachineStore
from waiting import PATIENCE, wait_for

pytestmark = pytest.mark.early

CLOCK = SystemClock()
DISK = "  disks:\n  - {file: a.qcow2, size: 8MiB}\n"


@dataclass
class Bench:
    """A provider, and what a test needs around it."""

    provider: Provider
    folder: Path
    real: bool

    def define(self, name: str = "a", more: str = DISK) -> str:
        self.provider.define(self.machine(name, more))
        return name

    def machine(self, name: str = "a", more: str = DISK) -> Machine:
        return tiny_machine(self.folder, name, more)

    def options(self, **more: bool | str) -> StartOptions:
        return StartOptions(accelerator="tcg", **more)  # type: ignore[arg-type]

    def run(self, name: str = "a", **more: bool | str) -> RunningMachine:
        return RunningMachine(self.provider, name, CLOCK, options=self.options(**more))


@pytest.fixture(
    params=[
        "memory",
        pytest.param("qemu", marks=[pytest.mark.tool(PROGRAM), pytest.mark.tool("swtpm_setup")]),
    ]
)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    folder = Path(tempfile.mkdtemp(prefix="mt-"))  # short, for the sake of unix sockets
    provider: Provider = MemoryProvider()
    if request.param == "qemu":
        store = MachineStore(folder / "c", folder / "s", folder / "r")
        provider = QemuProvider(store, CLOCK)
    yield Bench(provider, folder, request.param == "qemu")
    for name in provider.names():
        provider.stop(name, timeout=0)
    shutil.rmtree(folder)


def test_a_definition_is_kept_and_replaced(bench: Bench) -> None:
    assert list(bench.provider.names()) == []
    bench.define("b")
    bench.define("a")
    assert list(bench.provider.names()) == ["a", "b"]
    assert bench.provider.state("a") == State("initialized")
    port = "  nics:\n  - ports:\n    - {host: {port: 4711}, guest: {port: 80}}\n"
    bench.define("a", port)
    assert [one.host.port for one in bench.provider.ports("a")] == [4711]
    assert list(bench.provider.ports("b")) == []
    assert list(bench.provider.names()) == ["a", "b"]


def test_what_is_not_defined_is_missing(bench: Bench) -> None:
    provider = bench.provider
    calls: list[Callable[[str], object]] = [
        provider.create, provider.start, provider.stop, provider.pull_plug, provider.delete,
        provider.state, provider.ports, provider.disks, provider.console,
        lambda name: provider.wait(name, 0), lambda name: provider.save(name, "t"),
        lambda name: provider.load(name, "t"),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(MissingError, match="there is no machine a"):
            call("a")


def test_create_makes_what_is_missing_and_keeps_what_is_there(bench: Bench) -> None:
    bench.define()
    (disk,) = bench.provider.disks("a")
    assert disk.name == "a.qcow2"
    bench.provider.create("a")
    assert disk.exists() is bench.real
    before = disk.stat().st_mtime_ns if bench.real else 0
    bench.provider.create("a")
    assert (disk.stat().st_mtime_ns if bench.real else 0) == before
    assert bench.provider.state("a").status == "initialized"


def test_one_life(bench: Bench) -> None:
    name = bench.define()
    started = bench.provider.start(name, bench.options())
    assert started.machine.name == name
    assert started.notices == ()
    state = bench.provider.state(name)
    assert (state.status, state.reason, state.active) == ("running", "", True)
    assert require_running(bench.provider, name).status == "running"
    with pytest.raises(ConflictError, match="machine a is running already"):
        bench.provider.start(name, bench.options())
    with pytest.raises(ConflictError, match="machine a is running"):
        bench.provider.delete(name)
    assert bench.provider.stop(name, timeout=0) == "quit"
    state = bench.provider.state(name)
    assert (state.status, state.active) == ("stopped", False)
    assert state.reason == "QEMU was stopped (quit)"
    with pytest.raises(MachineError, match=r"machine a is stopped: QEMU was stopped \(quit\)"):
        require_running(bench.provider, name)
    assert bench.provider.stop(name) == "not running"
    bench.provider.delete(name)
    assert list(bench.provider.names()) == []
    if bench.real:
        left = [path for path in bench.folder.rglob("*") if path.is_file()]
        assert {path.suffix for path in left} <= {".fd", ""}  # the firmware, the lock


def test_never_started_is_not_running(bench: Bench) -> None:
    bench.define()
    assert bench.provider.stop("a") == "not running"
    assert bench.provider.state("a") == State("initialized")
    assert bench.provider.wait("a", 0)
    with pytest.raises(MachineError, match="machine a is initialized"):
        require_running(bench.provider, "a")
    with pytest.raises(MachineError):
        bench.provider.console("a").send("x")


def test_the_guest_is_asked_first(bench: Bench) -> None:
    bench.define()
    with bench.run() as machine:
        machine.wait_console("ready", PATIENCE)
        assert machine.power_off(PATIENCE) == "powered off"
        assert machine.state.reason == "the guest powered off"


def test_a_guest_that_does_not_listen_is_ended(bench: Bench) -> None:
    bench.define()
    with bench.run() as machine:
        machine.wait_console("ready", PATIENCE)
        machine.send("i")
        machine.wait_console("i", PATIENCE)
        assert machine.power_off(0.3) == "quit"


def test_what_is_typed_is_read_and_what_is_written_kept(bench: Bench) -> None:
    bench.define()
    with bench.run() as machine:
        machine.wait_console("tiny guest ready", PATIENCE)
        machine.send("xyz")
        assert machine.wait_console("x(.)z", PATIENCE)[1] == "y"
        assert not bench.provider.wait("a", 0)
        machine.send("q")
        assert bench.provider.wait("a", PATIENCE)
        state = machine.wait_exit(PATIENCE)
        assert (state.status, state.reason) == ("stopped", "the guest powered off")
        assert machine.console_text == "tiny guest ready\r\nxyzq"
    assert bench.provider.console("a").text().endswith("xyzq")


def attach(bench: Bench, typed: bytes) -> tuple[Left, bytes]:
    source, feed = os.pipe()
    reader, sink = os.pipe()
    try:
        os.write(feed, typed)
        os.close(feed)
        left = bench.provider.console("a").attach(source=source, sink=sink)
        os.set_blocking(reader, False)
        try:
            return left, os.read(reader, 1 << 16)
        except BlockingIOError:
            return left, b""
    finally:
        for descriptor in (source, reader, sink):
            os.close(descriptor)


def test_a_pipe_at_the_console(bench: Bench) -> None:
    bench.define()
    with bench.run() as machine:
        machine.wait_console("ready", PATIENCE)
        assert attach(bench, b"hello\x1dlost")[0] == "escape"
        machine.wait_console("hello", PATIENCE)
        assert "lost" not in machine.console_text
        # Whoever pipes something in hears the guest until it is quiet; a slow one is, before it
        # has answered.
        left, output = attach(bench, b"echo")
        assert left == "input ended"
        output = output or wait_for(lambda: attach(bench, b"echo")[1], what="an echo")
        assert output.startswith(b"echo")
        assert attach(bench, b"q")[0] == "closed"
        machine.wait_exit(PATIENCE)
        with pytest.raises(MachineError):
            attach(bench, b"")


def test_the_console_is_for_one(bench: Bench) -> None:
    bench.define()
    with bench.run() as machine:
        machine.wait_console("ready", PATIENCE)
        machine.send("x")
        machine.wait_console("x", PATIENCE)
        with pytest.raises(ConflictError, match="console is in use"):
            attach(bench, b"")
        machine.console.close()
        assert attach_when_free(bench, b"y\x1d") == "escape"


def attach_when_free(bench: Bench, typed: bytes) -> Left:
    """QEMU takes a moment to notice that somebody has left."""

    def attempt() -> Left | None:
        try:
            return attach(bench, typed)[0]
        except ConflictError:
            return None

    left = wait_for(attempt, what="the console is free")
    assert left is not None
    return left


def test_a_reboot_can_be_an_end(bench: Bench) -> None:
    bench.define()
    with bench.run(no_reboot=True) as machine:
        machine.wait_console("ready", PATIENCE)
        machine.send("r")
        assert machine.wait_exit(PATIENCE).reason == "the guest rebooted, which ends this run"
    with bench.run() as machine:
        machine.wait_console("ready", PATIENCE)
        machine.send("r")
        machine.wait_console("ready", PATIENCE)


def test_a_paused_start_runs_nothing(bench: Bench) -> None:
    bench.define()
    bench.provider.start("a", bench.options(paused=True))
    state = bench.provider.state("a")
    assert (state.status, state.reason) == ("running", "prelaunch")
    assert bench.provider.console("a").text() == ""
    assert bench.provider.stop("a", timeout=0) == "quit"


def test_a_pulled_plug_is_an_end(bench: Bench) -> None:
    bench.define()
    with bench.run() as machine:
        machine.wait_console("ready", PATIENCE)
        machine.pull_plug()
        assert (machine.state.status, machine.state.reason) == ("stopped", "the plug was pulled")
        assert bench.provider.wait("a", 0)
    with bench.run() as machine:
        machine.wait_console("ready", PATIENCE)


def test_a_snapshot_puts_the_guest_back(bench: Bench) -> None:
    bench.define()
    with bench.run() as machine:
        machine.wait_console("ready", PATIENCE)
        machine.save("base")
        machine.send("i")
        machine.wait_console("i", PATIENCE)
        machine.load("base")  # forgets that it ignores the power button
        assert machine.power_off(PATIENCE) == "powered off"
    with bench.run(snapshot="base") as machine:
        machine.send("xyz")
        machine.wait_console("xyz", PATIENCE)
        assert "ready" not in machine.console_text
        with pytest.raises(MachineError, match="loadvm absent"):
            machine.load("absent")
        for call in (machine.save, machine.load):
            with pytest.raises(UsageError, match="cannot name a snapshot"):
                call("A b")


def test_a_taken_port_is_refused_before_anything_is_made(bench: Bench) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        if not bench.real:
            bench.provider = MemoryProvider(taken=[("tcp", port)])
        assert not bench.provider.is_free("tcp", port)
        assert bench.provider.is_free("udp", port)
        forward = f"{{host: {{port: {port}}}, guest: {{port: 80}}}}"
        bench.define(more=f"{DISK}  nics:\n  - ports: [{forward}]\n")
        with pytest.raises(ConflictError, match=f"tcp port {port} of 127.0.0.1"):
            bench.provider.start("a", bench.options())
    assert bench.provider.state("a") == State("initialized")
    assert not bench.provider.disks("a")[0].exists()
