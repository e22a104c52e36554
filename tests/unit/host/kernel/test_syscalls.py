from __future__ import annotations

import sys
from pathlib import Path

import pytest

from machineos.core.run import run
from machineos.errors import MissingError, ToolError
from machineos.host.kernel.syscalls import MAC_ADMIN, drop_capability, load_module
from waiting import PATIENCE


def test_what_is_no_module(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="does not exist"):
        load_module(tmp_path / "none.ko")
    path = tmp_path / "bad.ko"
    path.write_bytes(b"not a module")
    with pytest.raises(ToolError, match=r"bad\.ko: E[A-Z]+"):
        load_module(path)


@pytest.mark.root
def test_a_dropped_capability_stays_away(tmp_path: Path) -> None:
    """In a process of its own: neither it nor a program that it starts gets it back."""
    for name in ("bset", "inheritable"):
        (tmp_path / name).write_text("4294967295\t511\n")
    code = (
        "import os, sys; from pathlib import Path; from machineos.host.kernel import syscalls; "
        "syscalls.drop_capability(33, helpers=Path(sys.argv[1])); "
        "os.execv('/bin/grep', ['grep', '-E', 'Cap(Prm|Eff|Bnd)', '/proc/self/status'])"
    )
    lines = run([sys.executable, "-c", code, tmp_path], timeout=PATIENCE).text.splitlines()
    masks = [int(line.split()[1], 16) for line in lines]
    assert len(masks) == 3
    assert not any(mask & 1 << MAC_ADMIN for mask in masks)
    assert masks[0] & 1 << 21  # the others stay: this one is CAP_SYS_ADMIN
    for name in ("bset", "inheritable"):
        assert (tmp_path / name).read_text() == "4294967295 509\n"


def test_helpers_that_cannot_be_changed(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"capability 33: .*bset: No such file"):
        drop_capability(MAC_ADMIN, helpers=tmp_path)
