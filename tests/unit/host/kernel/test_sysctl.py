"""A parameter of the kernel is set, or it is said why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from machineos.errors import MissingError, ToolError
from machineos.host.kernel.sysctl import write


def test_it_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "sys/net/ipv4/conf/eth0.5"
    folder.mkdir(parents=True)
    (folder / "forwarding").write_text("1")
    write("net/ipv4/conf/eth0.5/forwarding", "0", proc=tmp_path)
    assert (folder / "forwarding").read_text() == "0"


def test_one_that_this_kernel_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="kernel parameter kernel/none does not exist"):
        write("kernel/none", "1", proc=tmp_path)
    assert not (tmp_path / "sys").exists()


def test_one_that_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sys/kernel/folder").mkdir(parents=True)
    with pytest.raises(ToolError) as caught:
        write("kernel/folder", "1", proc=tmp_path)
    assert caught.value.message == (
        "kernel parameter kernel/folder: '1' cannot be set: Is a directory"
    )
