from __future__ import annotations

from machineos.cli.operator import shape
from machineos.document.between.status import ServiceStatus, summarise

ZOT = ServiceStatus(
    name="zot",
    version="1",
    state="running",
    unit="u.service",
    pid=7,
    restarts=2,
    nsgroup="g",
    hostid=100000,
    network="simple",
    addresses=("10.0.3.9", "fd00::9"),
    ports=("80->5000/tcp", "53->53/udp"),
    notes=("n1", "n2"),
)
BAD = ServiceStatus(name="bad", version="2", state="refused", why="no command")


def test_rows() -> None:
    found = summarise(
        generation="abc", product="p", updated="now", problems=("x", "y"), services=(ZOT, BAD)
    )
    assert shape.COLUMNS == ("NAME", "VERSION", "STATE", "ADDRESS", "WHY")
    assert shape.rows(found) == [
        ("zot", "1", "running", "10.0.3.9", "-"),
        ("bad", "2", "refused", "-", "no command"),
    ]
    assert shape.head(found)[:2] == ["product     p", "generation  abc"]
    assert shape.head(found)[3:] == ["problem     x", "problem     y"]
    services = (shape.service_json(ZOT), shape.service_json(BAD))
    assert shape.status_json(found)["services"] == services


def test_details_leave_out_what_is_empty() -> None:
    assert shape.details(ZOT) == [
        "name        zot",
        "version     1",
        "state       running",
        "ids         g (from 100000)",
        "network     simple 10.0.3.9 fd00::9",
        "ports       80->5000/tcp, 53->53/udp",
        "pid         7",
        "restarts    2",
        "unit        u.service",
        "log         journalctl -u u.service",
        "note        n1",
        "note        n2",
    ]
    assert "ids         host ids" in shape.details(BAD)
    assert "why         no command" in shape.details(BAD)
    assert not [line for line in shape.details(BAD) if line.startswith(("pid", "log", "unit"))]
