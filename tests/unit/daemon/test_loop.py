"""The loop of mosd, and mosd as a process."""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from machineos.core import run
from machineos.core.clock import SystemClock
from machineos.daemon.loop import Daemon
from machineos.daemon.start import Places, begin
from machineos.daemon.wiring import build
from machineos.document.between import status
from machineos.document.between.handover import Handover, Layer, Service, encode_handover
from machineos.document.product.install import Network
from machineos.errors import DocumentError, MissingError
from machineos.service.act.manager import Manager
from machineos.service.act.surroundings import Folders
from machineos.state.volumes.service import FolderStorage
from unit.service.conftest import PlainVolumes, ProcessUnits


def handover(tmp_path: Path, *services: Service) -> Handover:
    return Handover(
        version=1,
        generation="g1",
        product="default",
        store=str(tmp_path / "store"),
        data=str(tmp_path / "data"),
        data_device="/dev/vda4",
        services=services,
    )


def service(name: str) -> Service:
    digest = "sha256:" + "1" * 64
    return Service(
        name=name,
        version="1",
        type="container",
        image=digest,
        config=digest,
        layer=Layer(digest=digest, root_hash="2" * 64, blob="b", signature="s"),
        network=Network(type="none"),
    )


def daemon(tmp_path: Path, lines: list[str], sent: list[str], *services: Service) -> Daemon:
    document = handover(tmp_path, *services)
    manager = Manager(
        document,
        store=tmp_path / "store",
        folders=Folders(run=tmp_path / "run", units=tmp_path / "units"),
        volumes=PlainVolumes(),
        storage=FolderStorage(tmp_path / "data"),
        units=ProcessUnits(tmp_path / "units", tmp_path),
        forward=lambda forwards: None,
        log=lines.append,
    )
    return Daemon(
        manager,
        document,
        status_path=tmp_path / "run/status.json",
        notify=sent.append,
        log=lines.append,
        clock=SystemClock(),
    )


def test_ready_then_sigterm_and_the_status_stays(tmp_path: Path) -> None:
    lines: list[str] = []
    sent: list[str] = []
    mosd = daemon(tmp_path, lines, sent, service("web"))
    # Blocked until the loop takes it, so it cannot be missed; sent to this thread, because others
    # (the test runner's) do not block it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        mosd.run()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert sent == ["READY=1", "STOPPING=1"]
    found = status.read(tmp_path / "run/status.json")
    assert (found.generation, found.settled, found.good) == ("g1", True, False)
    (web,) = found.services
    assert web.state == "refused"
    assert "is not in the store" in web.why
    assert any(line.startswith("web: refused") for line in lines)


def test_a_change_is_logged_once(tmp_path: Path) -> None:
    lines: list[str] = []
    mosd = daemon(tmp_path, lines, [], service("web"))
    mosd._manager.reconcile()
    first = mosd.observe()
    second = mosd.observe()
    assert first is not None
    assert second is not None
    assert first.services == second.services
    assert sum(line.startswith("web: refused: web: image manifest") for line in lines) == 2
    assert len(lines) == 2  # what reconcile said, and the state as it was first seen


def test_no_services_is_a_good_machine(tmp_path: Path) -> None:
    mosd = daemon(tmp_path, [], [])
    mosd._manager.reconcile()
    found = mosd.observe()
    assert found is not None
    assert (found.settled, found.good, found.services) == (True, True, ())


def test_a_machine_without_handover_is_told_so(tmp_path: Path) -> None:
    places = Places(run=tmp_path)
    with pytest.raises(MissingError, match=r"boot\.json"):
        begin(places)
    places.handover.write_bytes(b"{}")
    with pytest.raises(DocumentError):
        begin(places)
    places.handover.write_bytes(encode_handover(handover(tmp_path, service("web"))))
    assert build(begin(places), notify_socket="", log=[].append)


def test_the_process_logs_one_line_and_has_an_exit_status() -> None:
    if Path("/run/machineos/boot.json").exists():
        pytest.skip("this is an appliance")
    source = str(Path(__file__).parents[3] / "src")
    started = time.monotonic()
    result = run.run(
        [sys.executable, "-m", "machineos.daemon"],
        timeout=30,
        env={"PYTHONPATH": source},
        check=False,
    )
    assert result.status == MissingError.exit_code
    assert result.stderr.decode().count("\n") == 1
    assert result.stderr.startswith(b"mosd: cannot go on: /run/machineos/boot.json")
    assert time.monotonic() - started < 20
