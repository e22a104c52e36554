"""Machines with a real QEMU and a real swtpm: start, stop, death, interruption, console, CLI.

The guest is a few bytes (``tiny_guest``); one test stops real Secure Boot firmware before its first
instruction. Everything runs under emulation, so that the result does not depend on the host.
"""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from tiny_guest import tiny_machine, write_firmware

from machineos.core import run
from machineos.core.clock import SystemClock
from machineos.core.files import locked
from machineos.errors import ConflictError, MachineError, MissingError, ToolError
from machineos.host.virt import qmp
from machineos.host.virt.uefivars import Enrolled
from machineos.vm import console, lifecycle
from machineos.vm.accel import Accelerator
from machineos.vm.document import decode_machine
from machineos.vm.plan import StartOptions
from machineos.vm.process import Process, from_pid_file
from machineos.vm.running import RunningMachine
from machineos.vm.store import MachineStore
from machineos.vm.uefi import FIRMWARE_FOLDER, prepare_uefi

pytestmark = pytest.mark.timeout(60)
CLOCK = SystemClock()
TCG = Accelerator("tcg")
DISK = "  disks:\n  - {file: a.qcow2, size: 8MiB}\n"


@pytest.fixture
def folder():
    """A short path: unix sockets allow 107 bytes. Nothing of a test outlives it."""
    path = Path(tempfile.mkdtemp(prefix="mt-"))
    yield path
    left = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.fsencode(path) in (entry / "cmdline").read_bytes():
                left.append(Process.of(int(entry.name)))
        except (OSError, MissingError):
            continue
    left = [process for process in left if process.alive]
    for process in left:
        process.send(signal.SIGKILL)
    shutil.rmtree(path)
    assert not left, "a process was left behind"


@pytest.fixture
def store(folder):
    return MachineStore(folder / "c", folder / "s", folder / "r")


@pytest.fixture
def tiny(store, folder):
    """The machine ``tiny``, defined."""
    store.create(tiny_machine(folder))
    return "tiny"


def running(store, name, **more):
    return RunningMachine(store, name, CLOCK, accelerator=TCG, **more)


def start(store, name, **more):
    return lifecycle.start(store, name, CLOCK, accelerator=TCG, **more)


def stop(store, name, **more):
    return lifecycle.stop(store, name, CLOCK, **more)


def test_life_of_a_machine(store, tiny):
    assert lifecycle.state_of(store, tiny).status == "initialized"
    with running(store, tiny) as machine:
        machine.wait_console("tiny guest ready", 10)
        assert lifecycle.state_of(store, tiny).status == "running"
        machine.send("xyz")
        assert machine.wait_console("x(.)z", 10)[1] == "y"
        machine.send("q")
        state = machine.wait_exit(10)
        assert (state.status, state.reason) == ("stopped", "the guest powered off")
        assert machine.console_text.endswith("xyzq")
    assert lifecycle.state_of(store, tiny).status == "stopped"
    assert from_pid_file(store.paths(tiny).swtpm_pid) is None  # the TPM ends with QEMU


def test_stop_is_graceful(store, tiny):
    start(store, tiny)
    wait_ready(store, tiny)
    assert stop(store, tiny, timeout=10) == "powered off"
    assert stop(store, tiny) == "not running"


def wait_ready(store, name):
    log = store.paths(name).console_log
    deadline = CLOCK.monotonic() + 10
    while b"ready" not in log.read_bytes():
        assert CLOCK.monotonic() < deadline
        CLOCK.sleep(0.01)


def test_stop_is_firm_when_the_guest_does_not_listen(store, tiny):
    with running(store, tiny) as machine:
        machine.send("i")
        machine.wait_console("i", 10)
        assert stop(store, tiny, timeout=0.3) == "quit"
        assert machine.state.status == "stopped"


def test_stop_kills_a_qemu_that_hangs(store, tiny):
    start(store, tiny, options=StartOptions(paused=True))
    process = lifecycle.state_of(store, tiny).qemu
    process.send(signal.SIGSTOP)
    assert lifecycle.state_of(store, tiny).reason == "QEMU does not answer"
    assert stop(store, tiny, force=True) == "killed"
    assert lifecycle.state_of(store, tiny).status == "stopped"


def test_force_does_not_ask(store, tiny):
    start(store, tiny)
    before = CLOCK.monotonic()
    assert stop(store, tiny, force=True) == "quit"
    assert CLOCK.monotonic() - before < 5


def test_reboot_can_be_an_end(store, tiny):
    with running(store, tiny, options=StartOptions(no_reboot=True)) as machine:
        machine.wait_console("ready", 10)
        machine.send("r")
        assert "rebooted" in machine.wait_exit(10).reason
    with running(store, tiny) as machine:
        machine.wait_console("ready", 10)
        machine.send("r")
        machine.wait_console("ready", 10)


def test_wait_console_says_what_happened(store, tiny):
    with running(store, tiny) as machine:
        with pytest.raises(MachineError, match=r"0\.1 s have passed(?s:.*)tiny guest"):
            machine.wait_console("never", 0.1)
        machine.send("q")
        with pytest.raises(MachineError, match="stopped \\(the guest powered off\\)"):
            machine.wait_console("never", 10)


def test_dead_qemu_is_noticed_and_said(store, tiny):
    start(store, tiny)
    state = lifecycle.state_of(store, tiny)
    state.qemu.send(signal.SIGKILL)
    assert state.qemu.wait(5, CLOCK)
    assert state.swtpm.wait(5, CLOCK)
    state = lifecycle.state_of(store, tiny)
    assert (state.status, state.reason) == ("failed", "QEMU has died without a word")
    with pytest.raises(MachineError, match="tiny is failed: QEMU has died"):
        lifecycle.require_running(store, tiny)
    started = start(store, tiny)
    assert started.notices == ("the last run of tiny failed: QEMU has died without a word",)
    stop(store, tiny, force=True)


def test_dead_tpm_is_noticed_and_said(store, tiny):
    start(store, tiny)
    state = lifecycle.state_of(store, tiny)
    state.swtpm.send(signal.SIGKILL)
    assert state.swtpm.wait(5, CLOCK)
    state = lifecycle.state_of(store, tiny)
    assert state.status == "failed"
    assert "TPM (swtpm) has died" in state.reason
    with pytest.raises(ConflictError, match=r"failed: its TPM"):
        start(store, tiny)
    stop(store, tiny, force=True)
    with running(store, tiny) as machine:
        assert machine.state.status == "running"


def test_a_tpm_that_does_not_start(store, tiny):
    paths = store.paths(tiny)
    with running(store, tiny):
        pass
    (paths.tpm / "tpm2-00.permall").write_bytes(b"not a TPM")
    with pytest.raises(MachineError, match=r"tiny: QEMU ended at its start: .*tpm"):
        start(store, tiny)
    state = lifecycle.state_of(store, tiny)
    assert state.status == "failed"
    assert not state.active
    assert from_pid_file(paths.swtpm_pid) is None


def test_start_twice(store, tiny):
    with running(store, tiny):
        with pytest.raises(ConflictError, match="tiny is running already"):
            start(store, tiny)
        with pytest.raises(ConflictError, match="is running"):
            lifecycle.delete(store, tiny)
        with (
            locked(store.paths(tiny).lock, what="x"),
            pytest.raises(ConflictError, match="machine tiny is in use by another process"),
        ):
            stop(store, tiny)


def test_two_starts_at_once_give_one_machine(store, tiny):
    results = []

    def attempt():
        try:
            start(store, tiny)
            results.append("started")
        except ConflictError as error:
            results.append(error.message)

    threads = [threading.Thread(target=attempt) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count("started") == 1
    assert any("in use" in result or "already" in result for result in results)
    assert stop(store, tiny, force=True) == "quit"


def test_two_machines_at_once(store, folder):
    ports = [free_port(), free_port()]
    for name, port in zip("ab", ports, strict=True):
        nic = f"  nics:\n  - ports:\n    - {{host: {{port: {port}}}, guest: {{port: 80}}}}\n"
        store.create(tiny_machine(folder, name, nic + DISK))
    with running(store, "a") as one, running(store, "b") as two:
        for machine, text in ((one, "111"), (two, "222")):
            machine.wait_console("ready", 10)
            machine.send(text)
            machine.wait_console(text, 10)
        assert "222" not in one.console_text
        for port in ports:
            with socket.create_connection(("127.0.0.1", port), timeout=5):
                pass
        one.send("q")
        one.wait_exit(10)
        assert two.state.status == "running"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_taken_host_port_is_said_before_anything_starts(store, folder):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        nic = f"  nics:\n  - ports:\n    - {{host: {{port: {port}}}, guest: {{port: 80}}}}\n"
        store.create(tiny_machine(folder, "a", nic))
        with pytest.raises(ConflictError, match=f"tcp port {port} of 127.0.0.1"):
            start(store, "a")
    assert lifecycle.state_of(store, "a").status == "initialized"
    assert not store.paths("a").tpm.exists()


def test_one_disk_is_never_written_by_two_machines(store, folder):
    disk = folder / "shared.qcow2"
    for name in "ab":
        store.create(tiny_machine(folder, name, f"  disks:\n  - {{file: {disk}, size: 8MiB}}\n"))
    with running(store, "a"):
        with pytest.raises(
            MachineError, match=r"b: QEMU ended at its start: .*another process using"
        ):
            start(store, "b")
        assert lifecycle.state_of(store, "b").status == "failed"


@pytest.mark.parametrize("stage", ["swtpm", "qemu"])
def test_a_start_that_is_cut_off_leaves_no_process(store, tiny, stage):
    paths = store.paths(tiny)
    with start_that_waits(store, tiny, stage) as child:
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=20)
    assert child.returncode != 0
    assert b"KeyboardInterrupt" in errors
    state = lifecycle.state_of(store, tiny)
    assert (state.status, state.active) == ("stopped", False)
    assert from_pid_file(paths.swtpm_pid) is None
    assert from_pid_file(paths.qemu_pid) is None
    with running(store, tiny) as machine:
        machine.wait_console("ready", 10)


def test_a_start_that_was_killed_is_failed_and_can_be_cleared(store, tiny):
    with start_that_waits(store, tiny, "qemu") as child:
        child.kill()
        child.communicate(timeout=20)
    state = lifecycle.state_of(store, tiny)
    assert (state.status, state.active) == ("failed", True)
    assert "interrupted" in state.reason
    assert stop(store, tiny, force=True) in {"quit", "killed"}
    with running(store, tiny) as machine:
        machine.wait_console("ready", 10)


@contextmanager
def start_that_waits(store, name, stage):
    """Start a machine in another process, which stands still once ``stage`` has been started."""
    paths = store.paths(name)
    text = f"""
import time
from pathlib import Path
from machineos.core.clock import SystemClock
from machineos.vm import lifecycle
from machineos.vm.accel import Accelerator
from machineos.vm.state import read_record
from machineos.vm.store import MachineStore
class Slow(SystemClock):
    def sleep(self, seconds):
        if read_record(Path({str(paths.record)!r})).{stage} is not None:
            time.sleep(60)
        super().sleep(seconds)
store = MachineStore({", ".join(f"Path({str(root)!r})" for root in roots(store))})
lifecycle.start(store, {name!r}, Slow(), accelerator=Accelerator("tcg"))
"""
    child = subprocess.Popen(
        [sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    pid_file = {"swtpm": paths.swtpm_pid, "qemu": paths.qemu_pid}[stage]
    deadline = CLOCK.monotonic() + 20
    try:
        while from_pid_file(pid_file) is None:
            assert CLOCK.monotonic() < deadline
            assert child.poll() is None
            CLOCK.sleep(0.01)
        yield child
    finally:
        if child.poll() is None:
            child.kill()
            child.communicate()


def roots(store):
    return store.config_root, store.state_root, store.runtime_root


def test_a_lost_record_does_not_lose_the_machine(store, tiny):
    start(store, tiny)
    store.paths(tiny).record.unlink()
    assert lifecycle.state_of(store, tiny).status == "running"
    assert stop(store, tiny, force=True) == "quit"


def test_snapshot(store, folder):
    store.create(tiny_machine(folder, "a", DISK))
    with running(store, "a") as machine:
        machine.wait_console("ready", 10)
        machine.save("base")
        machine.send("i")
        machine.wait_console("i", 10)
        machine.load("base")  # forgets that it ignores the power button
        assert stop(store, "a", timeout=10) == "powered off"
    with running(store, "a", options=StartOptions(snapshot="base")) as machine:
        machine.send("xyz")
        machine.wait_console("xyz", 10)
        assert "ready" not in machine.console_text
        with pytest.raises(MachineError, match="loadvm absent"):
            machine.load("absent")


def test_a_raw_disk_cannot_hold_a_snapshot(store, folder):
    raw = "  disks:\n  - {file: a.raw, format: raw, size: 8MiB}\n"
    store.create(tiny_machine(folder, "a", raw))
    with running(store, "a") as machine, pytest.raises(MachineError, match="savevm base"):
        machine.save("base")


def test_pulled_plug(store, folder):
    store.create(tiny_machine(folder, "a", DISK))
    with running(store, "a") as machine:
        machine.wait_console("ready", 10)
        machine.pull_plug()
        assert (machine.state.status, machine.state.reason) == ("stopped", "the plug was pulled")
    with running(store, "a") as machine:
        machine.wait_console("ready", 10)


@pytest.mark.parametrize("attach", ["virtio", "scsi", "nvme", "ide", "usb"])
def test_qemu_takes_every_kind_of_device(store, folder, attach):
    (folder / "cd.iso").write_bytes(b"c" * (1 << 20))
    more = f"""\
  gui: true
  boot: cdrom
  cdrom: {folder}/cd.iso
  smbios: {{serial: "a,b", product: p, sku: s, uuid: 6c8a6a0e-2f0c-4c57-9f5e-0f5f3e0c8a11}}
  fw-cfg:
  - {{name: opt/test, string: "x,y"}}
  nics:
  - {{id: one}}
  - {{id: two, device: e1000, mac: "52:54:00:00:00:02"}}
  disks:
  - {{file: a.qcow2, size: 8MiB, attach: {attach}, blocksize: 512}}
  - {{file: {folder}/cd.iso, type: cdrom, attach: {"ide" if attach == "ide" else "scsi"}}}
"""
    store.create(tiny_machine(folder, "a", more, top="ephemeral: true"))
    with running(store, "a", options=StartOptions(paused=True)) as machine:
        assert qmp.query_status(machine.paths.qmp) == "prelaunch"
        assert machine.paths.vnc.exists()


@pytest.mark.skipif(not FIRMWARE_FOLDER.is_dir(), reason="ovmf is not installed")
def test_secure_boot_firmware_with_our_keys_and_tpm(store, folder):
    keys = {}
    for name in ("pk", "kek", "db"):
        certificate = folder / f"{name}.crt"
        argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30"]
        argv += ["-subj", f"/CN={name}", "-keyout", folder / "key", "-out", certificate]
        run.run(argv, timeout=30)
        keys[name] = Enrolled(UUID("11111111-2222-3333-4444-123456789abc"), certificate)
    prepare_uefi(folder / "vars.fd", **keys)
    text = f"name: a\nconfig:\n  memory: 256\n  uefi-vars: {folder}/vars.fd\n{DISK}"
    store.create(decode_machine(text.encode(), name="a.yaml"))
    with running(store, "a", options=StartOptions(paused=True)) as machine:
        tpm = qmp.execute(machine.paths.qmp, [qmp.Command("query-tpm")], timeout=5)[0]
        assert [device["model"] for device in tpm] == ["tpm-crb"]
        machine.save("before")
    with pytest.raises(MissingError, match=r"none\.crt"):
        prepare_uefi(
            folder / "x.fd", **{**keys, "db": Enrolled(keys["db"].guid, folder / "none.crt")}
        )
    (folder / "key").write_text("no certificate")
    with pytest.raises(ToolError):
        prepare_uefi(folder / "x.fd", **{**keys, "db": Enrolled(keys["db"].guid, folder / "key")})
    assert not (folder / "x.fd").exists()


def test_console_of_a_pipe(store, tiny):
    with running(store, tiny) as machine:
        machine.wait_console("ready", 10)
        assert couple(machine, b"hello\x1dlost")[0] == "escape"
        machine.wait_console("hello", 10)
        assert "lost" not in machine.console_text
        left, output = couple(machine, b"echo")
        assert (left, output) == ("input ended", b"echo")
        assert couple(machine, b"q")[0] == "closed"
        machine.wait_exit(10)
        with pytest.raises(MachineError, match=r"no connection|no console"):
            couple(machine, b"")


def couple(machine, typed):
    source, feed = os.pipe()
    reader, sink = os.pipe()
    try:
        os.write(feed, typed)
        os.close(feed)
        left = console.attach(machine.paths, source=source, sink=sink)
        os.set_blocking(reader, False)
        try:
            return left, os.read(reader, 1 << 16)
        except BlockingIOError:
            return left, b""
    finally:
        for descriptor in (source, reader, sink):
            os.close(descriptor)


def test_console_is_for_one(store, tiny):
    with running(store, tiny) as machine:
        machine.send("x")
        machine.wait_console("x", 10)
        with pytest.raises(ConflictError, match="console is in use"):
            couple(machine, b"")


def test_console_restores_the_terminal(store, tiny):
    import termios

    controller, terminal = pty.openpty()
    try:
        before = termios.tcgetattr(terminal)
        with running(store, tiny) as machine:
            os.write(controller, b"hi\x1d")
            assert console.attach(machine.paths, source=terminal, sink=terminal) == "escape"
        assert termios.tcgetattr(terminal) == before
    finally:
        os.close(controller)
        os.close(terminal)


class Command:
    """The command ``machine`` as a user starts it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        names = {"CONFIG": "c", "STATE": "s"}
        self._env = {f"XDG_{key}_HOME": str(folder / name) for key, name in names.items()}
        self._env |= {"XDG_RUNTIME_DIR": str(folder / "r"), "HOME": str(folder), "PATH": run.PATH}

    def __call__(self, *words: str, typed: str = "", **env: str) -> subprocess.CompletedProcess:
        argv = [
            sys.executable,
            "-c",
            "from machineos.cli.developer.machine import main; main()",
            *words,
        ]
        return subprocess.run(
            argv, cwd=self._folder, env=self._env | env, input=typed, text=True,
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip


@pytest.fixture
def machine(folder):
    return Command(folder)


TINY = """\
name: tiny
description: a few bytes
config:
  cpus: 1
  memory: 128
  secure-boot: false
  uefi-code: tiny.fd
  uefi-vars: ./vars.fd
"""


def test_command_line(machine, folder):
    write_firmware(folder)
    (folder / "tiny.yaml").write_text(TINY)
    assert machine("init", "-f", "tiny.yaml").returncode == 0
    again = machine("init", "-f", "-", typed=TINY)
    assert (again.returncode, "machine tiny exists" in again.stderr) == (6, True)
    assert machine("list").stdout.splitlines()[1].split()[:2] == ["tiny", "initialized"]
    started = machine("start", "tiny", "--accelerator", "tcg")
    assert (started.returncode, started.stdout) == (0, "machine tiny is running\n")
    (row,) = json.loads(machine("list", "--json").stdout)
    assert (row["name"], row["status"], row["description"]) == ("tiny", "running", "a few bytes")
    assert machine("console", "tiny", typed="abc\x1d").returncode == 0
    shown = machine("info", "tiny").stdout
    assert "status: running" in shown
    decode_machine(shown.encode(), name="info")  # what info shows can be fed back
    assert json.loads(machine("info", "tiny", "--json").stdout)["accelerator"] == "tcg"
    assert machine("delete", "tiny").returncode == 6
    assert machine("edit", "tiny").returncode == 6
    assert "has no screen" in machine("gui", "tiny").stderr
    assert machine("stop", "tiny").stdout == "machine tiny has powered off\n"
    asleep = machine("console", "tiny")
    assert (asleep.returncode, "tiny is stopped" in asleep.stderr) == (9, True)
    assert machine("delete", "tiny").returncode == 0
    gone = machine("info", "tiny", "--json")
    assert (gone.returncode, json.loads(gone.stderr)["error"]) == (5, "MissingError")


def test_faults_on_the_command_line(machine):
    refused = machine("init", "-f", "-", typed="name: A\nconfig:\n  cpus: none\n  disk: x\n")
    assert refused.returncode == 3
    assert "line 3: config.cpus" in refused.stderr
    assert "line 4: config.disk" in refused.stderr
    assert machine("list").stdout.split() == ["NAME", "STATUS", "DESCRIPTION"]


def test_init_without_a_file(machine):
    assert machine("init").returncode == 0
    assert machine("init", "-m", "1.0-insecure").returncode == 0
    assert json.loads(machine("info", "vm1", "--json").stdout)["config"]["secure-boot"] is True
    assert json.loads(machine("info", "vm2", "--json").stdout)["config"]["secure-boot"] is False
    refused = machine("start", "vm1", "--accelerator", "tcg")
    assert (refused.returncode, "needs uefi-vars" in refused.stderr) == (9, True)


def test_edit(machine, folder):
    machine("init", "vm1")
    editor = folder / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/cpus: 2/cpus: $WANTED/" "$1"\n')
    editor.chmod(0o755)
    assert machine("edit", "vm1", EDITOR=str(editor), WANTED="3").returncode == 0
    assert json.loads(machine("info", "vm1", "--json").stdout)["config"]["cpus"] == 3
    bad = machine("edit", "vm1", EDITOR=str(editor), WANTED="0")
    assert (bad.returncode, bad.stdout) == (0, "nothing was changed\n")  # no cpus: 2 any more
    editor.write_text('#!/bin/sh\necho "cpus: 3" >> "$1"\n')
    bad = machine("edit", "vm1", EDITOR=str(editor))
    assert (bad.returncode, "cpus: is not a known key" in bad.stderr) == (3, True)


def test_run(machine, folder):
    write_firmware(folder)
    (folder / "tiny.yaml").write_text(TINY)
    done = machine("run", "other", "tiny.yaml")
    assert (done.returncode, "machine other is running" in done.stdout) == (0, True)
    stopped = machine("stop", "other", "--force")
    assert stopped.stdout == "machine other was ended\n"
