from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from machineos.cli.operator.mosctl import mosctl
from machineos.document.between import status
from machineos.errors import DocumentError, MissingError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = status.summarise(
        generation="abc",
        product="default",
        updated="2026-01-01T00:00:00+00:00",
        problems=(),
        services=(
            status.ServiceStatus(
                name="zot",
                version="1.0.0",
                state="running",
                unit="machineos-zot.service",
                pid=7,
                nsgroup="zot",
                hostid=100000,
                network="simple",
                addresses=("10.0.3.99",),
                ports=("80->5000/tcp",),
            ),
            status.ServiceStatus(name="bad", version="2", state="refused", why="no command"),
        ),
    )
    path = tmp_path / "status.json"
    path.write_bytes(status.encode(found))
    return path


def call(*words: str) -> str:
    result = CliRunner().invoke(mosctl, words, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.output


def test_list_shows_state_and_reason(file: Path) -> None:
    lines = call("service", "list", "--status-file", str(file)).splitlines()
    assert lines[0].split() == ["NAME", "VERSION", "STATE", "ADDRESS", "WHY"]
    assert lines[1].split() == ["zot", "1.0.0", "running", "10.0.3.99", "-"]
    assert lines[2].endswith("no command")


def test_json_is_what_the_file_says(file: Path) -> None:
    whole = json.loads(call("status", "--json", "--status-file", str(file)))
    assert (whole["good"], whole["settled"]) == (False, True)
    listed = json.loads(call("service", "list", "--json", "--status-file", str(file)))
    assert listed == whole["services"]
    one = json.loads(call("service", "status", "zot", "--json", "--status-file", str(file)))
    assert one == listed[0]


def test_one_service_says_where_its_log_is(file: Path) -> None:
    text = call("service", "status", "zot", "--status-file", str(file))
    assert "journalctl -u machineos-zot.service" in text
    assert "80->5000/tcp" in text
    with pytest.raises(MissingError, match="no service 'nope'"):
        call("service", "status", "nope", "--status-file", str(file))


def test_status_summary(file: Path) -> None:
    assert "degraded" in call("status", "--status-file", str(file))


def test_no_or_bad_status_file(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="has not run"):
        call("status", "--status-file", str(tmp_path / "absent"))
    (tmp_path / "bad").write_text("{}")
    with pytest.raises(DocumentError):
        call("status", "--status-file", str(tmp_path / "bad"))


def test_help_names_every_command() -> None:
    text = call("--help")
    for word in ("status", "service", "completion"):
        assert word in text
