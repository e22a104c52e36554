"""Which stacks of programs are refused, by the rule alone."""

from __future__ import annotations

import pytest

from machineos.document.rules.programs import STACK, Program
from machineos.errors import ArchiveError


def test_what_is_said_of_which_program() -> None:
    programs = (
        Program("bin/plain", 64, "plain"),
        Program("bin/silent", 64, "unsaid"),
        Program("bin/old", 32, "unsaid"),
        Program("bin/old-plain", 32, "plain"),
        Program("bin/" + "x" * 300, 64, "executable"),
    )
    assert [message for _, message in STACK.breaches(programs)] == [
        "'bin/old' is of 32 bits and does not say what its stack is",
        f"'bin/{'x' * 196}' wants its stack to be executable",
    ]
    STACK.require(programs[:2], "it")
    with pytest.raises(ArchiveError, match="it: 'bin/old' is of 32 bits") as caught:
        STACK.require(programs[:3], "it")
    assert caught.value.rule == "image-stack"
    assert "noexecstack" in caught.value.hint
