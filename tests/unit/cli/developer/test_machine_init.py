"""What a machine is called: what the caller says, or its definition; nobody makes a name up."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from machineos.cli.developer.machine import cli
from machineos.errors import DocumentError, UsageError


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def init(home: Path, *words: str, given: str = "") -> Result:
    env = {"HOME": str(home), "XDG_CONFIG_HOME": "", "XDG_STATE_HOME": "", "XDG_RUNTIME_DIR": ""}
    return CliRunner(env=env).invoke(cli, ["init", *words], input=given, standalone_mode=False)


def defined(home: Path) -> list[str]:
    return [path.parent.name for path in home.rglob("machine.yaml")]


def test_no_name_is_no_machine(home: Path) -> None:
    error = init(home).exception
    assert isinstance(error, UsageError)
    assert (error.message, error.hint) == ("the machine has no name", "say it: machine init NAME")
    assert isinstance(init(home, "-f", "-", given="description: d\n").exception, DocumentError)
    assert defined(home) == []


def test_a_name_is_said_or_in_the_definition(home: Path) -> None:
    assert init(home, "web").exception is None
    assert init(home, "-f", "-", given="name: db\n").exception is None
    assert init(home, "other", "-f", "-", given="name: db\n").exception is None
    assert sorted(defined(home)) == ["db", "other", "web"]
