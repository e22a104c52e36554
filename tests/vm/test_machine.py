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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from uuid import UUID

import pytest

from fakes.tiny_guest import tiny_machine, write_firmware
from machineos.core import run
from machineos.core.clock import SystemClock
from machineos.core.files import locked
from machineos.errors import ConflictError, MachineError, MissingError, ToolError
from machineos.host.virt import qmp, qmpsocket
from machineos.host.virt.uefivars import Enrolled
from machineos.vm.document import decode_machine
from machineos.vm.provider import (
    HowStopped,
    SecureBootKeys,
    Started,
    StartOptions,
    State,
    require_running,
)
from machineos.vm.providers.qemu import QemuProvider
from machineos.vm.qemu.look import look
from machineos.vm.qemu.placement import FIRMWARE_FOLDER
from machineos.vm.qemu.process import from_pid_file, is_alive, process_of, send, wait
from machineos.vm.qemu.record import Process
from machineos.vm.running import RunningMachine
from machineos.vm.store import MachineStore
from waiting import PATIENCE, wait_for

pytestmark = pytest.mark.timeout(900)
CLOCK = SystemClock()
DISK = "  disks:\n  - {file: a.qcow2, size: 8MiB}\n"
TCG = StartOptions(accelerator="tcg")
Stage = Literal["swtpm", "qemu"]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: unix sockets allow 107 bytes. Nothing of a test outlives it."""
    path = Path(tempfile.mkdtemp(prefix="mt-"))
    yield path
    left = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.fsencode(path) in (entry / "cmdline").read_bytes():
                left.append(process_of(int(entry.name)))
        except (OSError, MissingError):
            continue
    left = [process for process in left if is_alive(process)]
    for process in left:
        send(process, signal.SIGKILL)
    shutil.rmtree(path)
    assert not left, "a process was left behind"


@pytest.fixture
def store(folder: Path) -> MachineStore:
    return MachineStore(folder / "c", folder / "s", folder / "r")


@pytest.fixture
def tiny(store: MachineStore, folder: Path) -> str:
    """The machine ``tiny``, defined."""
    store.create(tiny_machine(folder))
    return "tiny"


def provider(store: MachineStore, firm: float = PATIENCE) -> QemuProvider:
    return QemuProvider(store, CLOCK, firm=firm)


def running(store: MachineStore, name: str, options: StartOptions = TCG) -> RunningMachine:
    return RunningMachine(provider(store), name, CLOCK, options=options)


def start(store: MachineStore, name: str, options: StartOptions = TCG) -> Started:
    return provider(store).start(name, options)


def stop(
    store: MachineStore, name: str, *, timeout: float = PATIENCE, firm: float = PATIENCE
) -> HowStopped:
    return provider(store, firm).stop(name, timeout=timeout)


def state_of(store: MachineStore, name: str) -> State:
    return provider(store).state(name)


def processes(store: MachineStore, name: str) -> tuple[Process, Process]:
    """Return QEMU and swtpm of a machine that runs."""
    seen = look(store.paths(name), CLOCK)
    assert seen.qemu is not None
    assert seen.swtpm is not None
    return seen.qemu, seen.swtpm


def test_life_of_a_machine(store: MachineStore, tiny: str) -> None:
    assert state_of(store, tiny).status == "initialized"
    with running(store, tiny) as machine:
        machine.wait_console("tiny guest ready", PATIENCE)
        assert state_of(store, tiny).status == "running"
        machine.send("xyz")
        assert machine.wait_console("x(.)z", 10)[1] == "y"
        machine.send("q")
        state = machine.wait_exit(PATIENCE)
        assert (state.status, state.reason) == ("stopped", "the guest powered off")
        assert machine.console_text.endswith("xyzq")
    assert state_of(store, tiny).status == "stopped"
    assert from_pid_file(store.paths(tiny).swtpm_pid) is None  # the TPM ends with QEMU


def test_stop_is_graceful(store: MachineStore, tiny: str) -> None:
    start(store, tiny)
    wait_ready(store, tiny)
    assert stop(store, tiny, timeout=PATIENCE) == "powered off"
    assert stop(store, tiny) == "not running"


def wait_ready(store: MachineStore, name: str) -> None:
    log = store.paths(name).console_log
    wait_for(lambda: b"ready" in log.read_bytes(), what="the guest is ready")


def test_stop_is_firm_when_the_guest_does_not_listen(store: MachineStore, tiny: str) -> None:
    with running(store, tiny) as machine:
        machine.wait_console("ready", PATIENCE)
        machine.send("i")
        machine.wait_console("i", PATIENCE)
        assert stop(store, tiny, timeout=0.3) == "quit"
        assert machine.state.status == "stopped"


def test_stop_kills_a_qemu_that_hangs(store: MachineStore, tiny: str) -> None:
    start(store, tiny, options=StartOptions(accelerator="tcg", paused=True))
    send(processes(store, tiny)[0], signal.SIGSTOP)
    assert state_of(store, tiny).reason == "QEMU does not answer"
    assert stop(store, tiny, timeout=0, firm=0.5) == "killed"
    assert state_of(store, tiny).status == "stopped"


def test_force_does_not_ask(store: MachineStore, tiny: str) -> None:
    start(store, tiny)
    wait_ready(store, tiny)  # now it would power off if it were asked
    assert stop(store, tiny, timeout=0) == "quit"


def test_reboot_can_be_an_end(store: MachineStore, tiny: str) -> None:
    with running(store, tiny, options=StartOptions(accelerator="tcg", no_reboot=True)) as machine:
        machine.wait_console("ready", PATIENCE)
        machine.send("r")
        assert "rebooted" in machine.wait_exit(PATIENCE).reason
    with running(store, tiny) as machine:
        machine.wait_console("ready", PATIENCE)
        machine.send("r")
        machine.wait_console("ready", PATIENCE)


def test_wait_console_says_what_happened(store: MachineStore, tiny: str) -> None:
    with running(store, tiny) as machine:
        machine.wait_console("ready", PATIENCE)
        with pytest.raises(MachineError, match=r"0\.1 s have passed(?s:.*)tiny guest"):
            machine.wait_console("never", 0.1)
        machine.send("q")
        with pytest.raises(MachineError, match="stopped \\(the guest powered off\\)"):
            machine.wait_console("never", PATIENCE)


def test_dead_qemu_is_noticed_and_said(store: MachineStore, tiny: str) -> None:
    start(store, tiny)
    qemu, swtpm = processes(store, tiny)
    send(qemu, signal.SIGKILL)
    assert wait(qemu, PATIENCE, CLOCK)
    assert wait(swtpm, PATIENCE, CLOCK)
    state = state_of(store, tiny)
    assert (state.status, state.reason) == ("failed", "QEMU has died without a word")
    with pytest.raises(MachineError, match="tiny is failed: QEMU has died"):
        require_running(provider(store), tiny)
    started = start(store, tiny)
    assert started.notices == ("the last run of tiny failed: QEMU has died without a word",)
    stop(store, tiny, timeout=0)


def test_dead_tpm_is_noticed_and_said(store: MachineStore, tiny: str) -> None:
    start(store, tiny)
    _, swtpm = processes(store, tiny)
    send(swtpm, signal.SIGKILL)
    assert wait(swtpm, PATIENCE, CLOCK)
    state = state_of(store, tiny)
    assert state.status == "failed"
    assert "TPM (swtpm) has died" in state.reason
    with pytest.raises(ConflictError, match=r"failed: its TPM"):
        start(store, tiny)
    stop(store, tiny, timeout=0)
    with running(store, tiny) as machine:
        assert machine.state.status == "running"


def test_a_tpm_that_does_not_start(store: MachineStore, tiny: str) -> None:
    paths = store.paths(tiny)
    with running(store, tiny):
        pass
    (paths.tpm / "tpm2-00.permall").write_bytes(b"not a TPM")
    with pytest.raises(MachineError, match=r"tiny: QEMU ended at its start: .*tpm"):
        start(store, tiny)
    state = state_of(store, tiny)
    assert state.status == "failed"
    assert not state.active
    assert from_pid_file(paths.swtpm_pid) is None


def test_start_twice(store: MachineStore, tiny: str) -> None:
    with running(store, tiny):
        with pytest.raises(ConflictError, match="tiny is running already"):
            start(store, tiny)
        with pytest.raises(ConflictError, match="is running"):
            provider(store).delete(tiny)
        with (
            locked(store.paths(tiny).lock, what="x"),
            pytest.raises(ConflictError, match="machine tiny is in use by another process"),
        ):
            stop(store, tiny)


def test_two_starts_at_once_give_one_machine(store: MachineStore, tiny: str) -> None:
    results = []

    def attempt() -> None:
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
    assert stop(store, tiny, timeout=0) == "quit"


def test_two_machines_at_once(store: MachineStore, folder: Path) -> None:
    ports = [free_port(), free_port()]
    for name, port in zip("ab", ports, strict=True):
        nic = f"  nics:\n  - ports:\n    - {{host: {{port: {port}}}, guest: {{port: 80}}}}\n"
        store.create(tiny_machine(folder, name, nic + DISK))
    with running(store, "a") as one, running(store, "b") as two:
        for machine, text in ((one, "111"), (two, "222")):
            machine.wait_console("ready", PATIENCE)
            machine.send(text)
            machine.wait_console(text, PATIENCE)
        assert "222" not in one.console_text
        for port in ports:
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE):
                pass
        one.send("q")
        one.wait_exit(PATIENCE)
        assert two.state.status == "running"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_taken_host_port_is_said_before_anything_starts(
    store: MachineStore, folder: Path
) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        nic = f"  nics:\n  - ports:\n    - {{host: {{port: {port}}}, guest: {{port: 80}}}}\n"
        store.create(tiny_machine(folder, "a", nic))
        with pytest.raises(ConflictError, match=f"tcp port {port} of 127.0.0.1"):
            start(store, "a")
    assert state_of(store, "a").status == "initialized"
    assert not store.paths("a").tpm.exists()


def test_one_disk_is_never_written_by_two_machines(store: MachineStore, folder: Path) -> None:
    disk = folder / "shared.qcow2"
    for name in "ab":
        store.create(tiny_machine(folder, name, f"  disks:\n  - {{file: {disk}, size: 8MiB}}\n"))
    with running(store, "a"):
        with pytest.raises(
            MachineError, match=r"b: QEMU ended at its start: .*another process using"
        ):
            start(store, "b")
        assert state_of(store, "b").status == "failed"


@pytest.mark.parametrize("stage", ["swtpm", "qemu"])
def test_a_start_that_is_cut_off_leaves_no_process(
    store: MachineStore, tiny: str, stage: Stage
) -> None:
    paths = store.paths(tiny)
    with start_that_waits(store, tiny, stage) as child:
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=PATIENCE)
    assert child.returncode != 0, errors
    assert b"KeyboardInterrupt" in errors, child.returncode
    state = state_of(store, tiny)
    assert (state.status, state.active) == ("stopped", False)
    assert from_pid_file(paths.swtpm_pid) is None
    assert from_pid_file(paths.qemu_pid) is None
    with running(store, tiny) as machine:
        machine.wait_console("ready", PATIENCE)


def test_a_start_that_was_killed_is_failed_and_can_be_cleared(
    store: MachineStore, tiny: str
) -> None:
    with start_that_waits(store, tiny, "qemu") as child:
        child.kill()
        child.communicate(timeout=PATIENCE)
    state = state_of(store, tiny)
    assert (state.status, state.active) == ("failed", True)
    assert "interrupted" in state.reason
    assert stop(store, tiny, timeout=0) in {"quit", "killed"}
    with running(store, tiny) as machine:
        machine.wait_console("ready", PATIENCE)


@contextmanager
def start_that_waits(
    store: MachineStore, name: str, stage: Stage
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a machine in another process, which stands still once ``stage`` has been started."""
    paths = store.paths(name)
    standing = store.state_root / "standing"
    text = f"""
import signal
import time
from pathlib import Path
from machineos.core.clock import SystemClock
from machineos.vm.provider import StartOptions
from machineos.vm.providers.qemu import QemuProvider
from machineos.vm.qemu.look import read_record
from machineos.vm.store import MachineStore
class Standing(SystemClock):
    stood = False
    def monotonic(self):  # asked for in every loop, also by a start that never has to sleep
        record = read_record(Path({str(paths.record)!r}))
        if record is not None and record.{stage} is not None and not self.stood:
            self.stood = True  # what is done after the interruption is not held up
            Path({str(standing)!r}).touch()
            time.sleep(3600)
        return super().monotonic()
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it
store = MachineStore({", ".join(f"Path({str(root)!r})" for root in roots(store))})
QemuProvider(store, Standing()).start({name!r}, StartOptions(accelerator="tcg"))
"""
    child = subprocess.Popen(
        [sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    pid_file = {"swtpm": paths.swtpm_pid, "qemu": paths.qemu_pid}[stage]

    try:
        wait_for(standing.exists, during=child, what=f"{stage} is started")
        wait_for(lambda: from_pid_file(pid_file), what=f"the pid file of {stage}")
        yield child
    finally:
        if child.poll() is None:
            child.kill()
            child.communicate()


def roots(store: MachineStore) -> tuple[Path, ...]:
    return store.config_root, store.state_root, store.runtime_root


def test_a_lost_record_does_not_lose_the_machine(store: MachineStore, tiny: str) -> None:
    start(store, tiny)
    store.paths(tiny).record.unlink()
    assert state_of(store, tiny).status == "running"
    assert stop(store, tiny, timeout=0) == "quit"


def test_snapshot(store: MachineStore, folder: Path) -> None:
    store.create(tiny_machine(folder, "a", DISK))
    with running(store, "a") as machine:
        machine.wait_console("ready", PATIENCE)
        machine.save("base")
        machine.send("i")
        machine.wait_console("i", PATIENCE)
        machine.load("base")  # forgets that it ignores the power button
        assert stop(store, "a", timeout=PATIENCE) == "powered off"
    with running(store, "a", options=StartOptions(accelerator="tcg", snapshot="base")) as machine:
        machine.send("xyz")
        machine.wait_console("xyz", PATIENCE)
        assert "ready" not in machine.console_text
        with pytest.raises(MachineError, match="loadvm absent"):
            machine.load("absent")


def test_a_raw_disk_cannot_hold_a_snapshot(store: MachineStore, folder: Path) -> None:
    raw = "  disks:\n  - {file: a.raw, format: raw, size: 8MiB}\n"
    store.create(tiny_machine(folder, "a", raw))
    with running(store, "a") as machine, pytest.raises(MachineError, match="savevm base"):
        machine.save("base")


def test_pulled_plug(store: MachineStore, folder: Path) -> None:
    store.create(tiny_machine(folder, "a", DISK))
    with running(store, "a") as machine:
        machine.wait_console("ready", PATIENCE)
        machine.pull_plug()
        assert (machine.state.status, machine.state.reason) == ("stopped", "the plug was pulled")
    with running(store, "a") as machine:
        machine.wait_console("ready", PATIENCE)


@pytest.mark.parametrize("attach", ["virtio", "scsi", "nvme", "ide", "usb"])
def test_qemu_takes_every_kind_of_device(store: MachineStore, folder: Path, attach: str) -> None:
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
    with running(store, "a", options=StartOptions(accelerator="tcg", paused=True)):
        assert qmpsocket.query_status(store.paths("a").qmp, clock=CLOCK) == "prelaunch"
        assert store.paths("a").vnc.exists()


@pytest.mark.skipif(not FIRMWARE_FOLDER.is_dir(), reason="ovmf is not installed")
def test_secure_boot_firmware_with_our_keys_and_tpm(store: MachineStore, folder: Path) -> None:
    def enrolled(name: str) -> Enrolled:
        certificate = folder / f"{name}.crt"
        run.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30",
                 "-subj", f"/CN={name}", "-keyout", folder / "key", "-out", certificate],
                timeout=PATIENCE)  # fmt: skip
        return Enrolled(UUID("11111111-2222-3333-4444-123456789abc"), certificate)

    pk, kek, db = enrolled("pk"), enrolled("kek"), enrolled("db")
    write = provider(store).write_variables
    write(folder / "vars.fd", SecureBootKeys(pk, kek, db))
    text = f"name: a\nconfig:\n  memory: 256\n  uefi-vars: {folder}/vars.fd\n{DISK}"
    store.create(decode_machine(text.encode(), name="a.yaml"))
    with running(store, "a", options=StartOptions(accelerator="tcg", paused=True)) as machine:
        asked = [qmp.Request("query-tpm")]
        (tpm,) = qmpsocket.execute(store.paths("a").qmp, asked, timeout=PATIENCE, clock=CLOCK)
        assert [device["model"] for device in tpm] == ["tpm-crb"]
        machine.save("before")
    gone = SecureBootKeys(pk, kek, Enrolled(db.guid, folder / "none.crt"))
    with pytest.raises(MissingError, match=r"none\.crt"):
        write(folder / "x.fd", gone)
    (folder / "key").write_text("no certificate")
    bad = SecureBootKeys(pk, kek, Enrolled(db.guid, folder / "key"))
    with pytest.raises(ToolError):
        write(folder / "x.fd", bad)
    assert not (folder / "x.fd").exists()


def test_console_of_a_pipe(store: MachineStore, tiny: str) -> None:
    with running(store, tiny) as machine:
        machine.wait_console("ready", PATIENCE)
        assert couple(machine, b"hello\x1dlost")[0] == "escape"
        machine.wait_console("hello", PATIENCE)
        assert "lost" not in machine.console_text
        # Whoever pipes something in hears the guest until it is quiet; a slow one is, before it
        # has answered.
        ended, output = couple(machine, b"echo")
        assert ended == "input ended"
        output = output or wait_for(lambda: couple(machine, b"echo")[1], what="an echo")
        assert output.startswith(b"echo")
        assert couple(machine, b"q")[0] == "closed"
        machine.wait_exit(PATIENCE)
        with pytest.raises(MachineError, match=r"no connection|no console"):
            couple(machine, b"")


def couple(machine: RunningMachine, typed: bytes) -> tuple[str, bytes]:
    source, feed = os.pipe()
    reader, sink = os.pipe()
    try:
        os.write(feed, typed)
        os.close(feed)
        left = machine.console.attach(source=source, sink=sink)
        os.set_blocking(reader, False)
        try:
            return left, os.read(reader, 1 << 16)
        except BlockingIOError:
            return left, b""
    finally:
        for descriptor in (source, reader, sink):
            os.close(descriptor)


def test_console_is_for_one(store: MachineStore, tiny: str) -> None:
    with running(store, tiny) as machine:
        machine.send("x")
        machine.wait_console("x", PATIENCE)
        with pytest.raises(ConflictError, match="console is in use"):
            couple(machine, b"")


def test_console_restores_the_terminal(store: MachineStore, tiny: str) -> None:
    import termios

    controller, terminal = pty.openpty()
    try:
        before = termios.tcgetattr(terminal)
        with running(store, tiny) as machine:
            os.write(controller, b"hi\x1d")
            assert machine.console.attach(source=terminal, sink=terminal) == "escape"
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

    def __call__(
        self, *words: str, typed: str = "", **env: str
    ) -> subprocess.CompletedProcess[str]:
        argv = [
            sys.executable,
            "-c",
            "from machineos.cli.developer.machine import main; main()",
            *words,
        ]
        return subprocess.run(
            argv, cwd=self._folder, env=self._env | env, input=typed, text=True,
            capture_output=True, timeout=PATIENCE, check=False,
        )  # fmt: skip


@pytest.fixture
def machine(folder: Path) -> Command:
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


def test_command_line(machine: Command, folder: Path) -> None:
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


def test_faults_on_the_command_line(machine: Command) -> None:
    refused = machine("init", "-f", "-", typed="name: A\nconfig:\n  cpus: none\n  disk: x\n")
    assert refused.returncode == 3
    assert "line 3: config.cpus" in refused.stderr
    assert "line 4: config.disk" in refused.stderr
    assert machine("list").stdout.split() == ["NAME", "STATUS", "DESCRIPTION"]


def test_init_without_a_file(machine: Command) -> None:
    assert machine("init").returncode == 2  # no name
    assert machine("init", "vm1").returncode == 0
    assert machine("init", "vm2", "-m", "1.0-insecure").returncode == 0
    assert json.loads(machine("info", "vm1", "--json").stdout)["config"]["secure-boot"] is True
    assert json.loads(machine("info", "vm2", "--json").stdout)["config"]["secure-boot"] is False
    refused = machine("start", "vm1", "--accelerator", "tcg")
    assert (refused.returncode, "needs uefi-vars" in refused.stderr) == (9, True)


def test_edit(machine: Command, folder: Path) -> None:
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


def test_run(machine: Command, folder: Path) -> None:
    write_firmware(folder)
    (folder / "tiny.yaml").write_text(TINY)
    done = machine("run", "other", "tiny.yaml")
    assert (done.returncode, "machine other is running" in done.stdout) == (0, True)
    stopped = machine("stop", "other", "--force")
    assert stopped.stdout == "machine other was ended\n"
