"""A parameter of the kernel is set, or it is said why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from machineos.errors import ToolError
from machineos.host.kernel.sysctl import write


def test_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "sys/kernel/yama").mkdir(parents=True)
    (tmp_path / "sys/kernel/yama/ptrace_scope").write_text("1")
    write("kernel.yama.ptrace_scope", "3", proc=tmp_path)
    assert (tmp_path / "sys/kernel/yama/ptrace_scope").read_text() == "3"


def test_one_that_this_kernel_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(ToolError) as caught:
        write("kernel.none", "1", proc=tmp_path)
    assert caught.value.message == (
        "kernel parameter kernel.none: '1' cannot be set: No such file or directory"
    )
    assert not (tmp_path / "sys").exists()
