"""What ``--debug`` shows, and what it never does."""

from __future__ import annotations

import sys

import click
import pytest

from machineos.cli.debug import line_of, without_query
from machineos.cli.developer.machine import cli as machine
from machineos.cli.developer.mosb import mosb
from machineos.cli.developer.trust import trust
from machineos.cli.operator.mosctl import mosctl
from machineos.core.run import run
from waiting import PATIENCE

HEAR = """
import os, sys
from dataclasses import dataclass
from machineos.cli import debug
from machineos.core.clock import SystemClock
from machineos.core.run import run
from machineos.core.steps import Runner, Step, ask
from machineos.core.facts import Facts, Part
debug.listen(SystemClock())
run(["cat", "--", "-"], input=b"a secret", env={"SECRET": "another"}, timeout=60)
sys.audit("machineos.request", "PUT", "https://me:hidden@h/v2/x/blobs/uploads/1?_state=signed#f")
@dataclass(frozen=True)
class Write(Step[None]):
    key: str
def act(facts):
    yield from ask(Write("a third"))
    return Facts()
part = Part("write it", frozenset(), frozenset({"written"}), act)
Runner(lambda step: None).run([part], Facts())
"""


def test_programs_requests_and_steps_are_shown_without_secrets() -> None:
    result = run([sys.executable, "-c", HEAR], timeout=PATIENCE, env={"PYTHONPATH": _path()})
    lines = [line.split(maxsplit=2) for line in result.stderr.decode().splitlines()]
    assert {word for word, _, _ in lines} == {"debug"}
    assert [text for _, _, text in lines] == [
        "run cat -- -",
        "request PUT https://...@h/v2/x/blobs/uploads/1?...",
        "phase write it",
        "step Write",
    ]


def _path() -> str:
    return ":".join(sys.path)


@pytest.mark.parametrize(
    ("event", "arguments", "line"),
    [
        ("subprocess.Popen", ("ls", ["ls", "a b"], None, None), "run ls 'a b'"),
        ("subprocess.Popen", ("ls", ("ls",), "/x", {"S": "s"}), "run ls (in /x)"),
        ("subprocess.Popen", ("ls", "ls -l", None, None), "run 'ls -l'"),
        ("machineos.answer", ("GET", "https://h/v2/", 404), "answer 404 to GET https://h/v2/"),
        ("machineos.phase", ("look",), "phase look"),
        ("machineos.step", ("WriteTable", "vda"), "step WriteTable vda"),
        ("machineos.step", ("Say", ""), "step Say"),
        ("open", ("/etc/passwd", "r", 0), ""),
        ("machineos.request", (1, 2, 3), ""),
    ],
)
def test_lines(event: str, arguments: tuple[object, ...], line: str) -> None:
    assert line_of(event, arguments) == line


def test_a_query_may_be_signed() -> None:
    assert without_query("https://s3/x?X-Amz-Signature=ab") == "https://s3/x?..."
    assert without_query("https://s3/x") == "https://s3/x"


@pytest.mark.parametrize("group", [trust, mosb, machine, mosctl])
def test_every_program_takes_it(group: click.Group) -> None:
    """As in the document that this was asked for with: mosb --debug manifest publish ..."""
    assert any("--debug" in parameter.opts for parameter in group.params)


def test_the_end_of_an_error_is_where_it_came_from() -> None:
    code = "from machineos.cli.developer.trust import main; main()"
    argv = [sys.executable, "-c", code, "--debug", "keyset", "show", "none"]
    env = {"PYTHONPATH": _path(), "XDG_DATA_HOME": "/nonexistent"}
    said = run(argv, timeout=PATIENCE, env=env, check=False)
    assert said.status == 5
    assert b"Traceback" in said.stderr
    assert said.stderr.endswith(b"trust: make it: trust keyset add none\n")
