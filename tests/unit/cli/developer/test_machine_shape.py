from __future__ import annotations

from pathlib import Path

import pytest

from machineos.cli.developer import machine_shape as shape
from machineos.vm.model import Endpoint, Port
from machineos.vm.paths import MachinePaths
from machineos.vm.provider import HowStopped, State

PORTS = (
    Port(Endpoint(28080), Endpoint(80)),
    Port(Endpoint(53, "0.0.0.0"), Endpoint(53, "10.0.2.15"), "udp"),
)


def test_a_row() -> None:
    row = shape.Row("vm1", "failed", "about", "why")
    assert row.cells() == ("vm1", "failed", "about")
    assert row.json() == {
        "name": "vm1",
        "status": "failed",
        "description": "about",
        "reason": "why",
    }
    assert shape.LIST_COLUMNS == ("NAME", "STATUS", "DESCRIPTION")


def test_ports() -> None:
    assert shape.forward_json(PORTS) == [
        {"protocol": "tcp", "host": "127.0.0.1:28080", "guest": "80"},
        {"protocol": "udp", "host": "0.0.0.0:53", "guest": "10.0.2.15:53"},
    ]
    assert shape.forward_lines(PORTS) == [
        "tcp 127.0.0.1:28080 -> 80",
        "udp 0.0.0.0:53 -> 10.0.2.15:53",
    ]
    assert shape.published_json(PORTS[:1]) == [{"protocol": "tcp", "host": 28080, "guest": 80}]


def test_a_state() -> None:
    paths = MachinePaths(Path("/c"), Path("/s"), Path("/r"), Path("/l"))
    state = State("running", "paused", 7, "tcg")
    assert shape.state_json(state, paths, PORTS[:1]) == {
        "status": "running",
        "reason": "paused",
        "accelerator": "tcg",
        "pid": 7,
        "forwards": shape.forward_json(PORTS[:1]),
        "console": "/r/console.sock",
        "console-log": "/s/console.log",
        "state-folder": "/s",
    }
    assert shape.state_lines(state, PORTS[:1]) == [
        "status: running",
        "# paused",
        "# tcp 127.0.0.1:28080 of this host is port 80 of the machine",
    ]
    assert shape.state_lines(State("stopped"), ()) == ["status: stopped"]


@pytest.mark.parametrize(
    ("how", "force", "line"),
    [
        ("not running", False, "machine a was not running"),
        ("powered off", False, "machine a has powered off"),
        ("quit", True, "machine a was ended"),
        ("quit", False, "machine a did not power off within 0.5 s and was ended"),
        ("killed", True, "machine a did not react and was killed"),
    ],
)
def test_how_it_stopped(how: HowStopped, force: bool, line: str) -> None:
    assert shape.stop_line("a", how, force=force, timeout=0.5) == line
