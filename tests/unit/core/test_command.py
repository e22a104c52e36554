"""Commands as values, and one carried out."""

from __future__ import annotations

from pathlib import Path

import pytest

from machineos.core.command import Command, Result
from machineos.core.run import perform
from machineos.errors import ToolError, ToolTimeoutError
from waiting import PATIENCE


def test_what_a_program_left_as_text() -> None:
    result = Result(("x",), 0, b" a\n\n", b"\xff b \n")
    assert result.text == " a"
    assert result.complaint == "\ufffd b"


def test_all_that_a_command_says_is_done(tmp_path: Path) -> None:
    script = 'cat; echo "$A"; pwd; echo no >&2; exit 3'
    command = Command(
        ("sh", "-c", script),
        PATIENCE,
        input=b"in\n",
        env=(("A", "b"),),
        cwd=tmp_path,
        success=(0, 3),
    )
    result = perform(command)
    assert (result.status, result.text) == (3, f"in\nb\n{tmp_path}")
    assert result.complaint == "no"


def test_success_is_status_0_a_list_or_any() -> None:
    failing = ("sh", "-c", "exit 4")
    with pytest.raises(ToolError, match="exit status 4"):
        perform(Command(failing, PATIENCE))
    with pytest.raises(ToolError, match="exit status 4"):
        perform(Command(failing, PATIENCE, success=(3,)))
    assert perform(Command(failing, PATIENCE, success=None)).status == 4


def test_the_time_is_bounded() -> None:
    with pytest.raises(ToolTimeoutError):
        perform(Command(("sleep", "3600"), 0.1))


def test_output_and_input_can_be_the_callers(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        command = Command(("sh", "-c", "cat; echo no >&2"), PATIENCE)
        result = perform(command, feed=lambda pipe: feed(pipe, b"fed"), stdout=out, stderr=err)
    assert (result.stdout, result.stderr) == (b"", b"")
    assert (tmp_path / "out").read_bytes() == b"fed"
    assert (tmp_path / "err").read_bytes() == b"no\n"


def test_descriptors_are_handed_on(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("content")
    with (tmp_path / "f").open("rb") as file:
        number = file.fileno()
        command = Command(("cat", f"/proc/self/fd/{number}"), PATIENCE, pass_fds=(number,))
        assert perform(command).text == "content"


def feed(pipe: int, data: bytes) -> None:
    with open(pipe, "wb", closefd=False) as file:
        file.write(data)
