"""Names of snapshots cannot carry another monitor command."""

from __future__ import annotations

import pytest

from machineos.errors import MachineError, UsageError
from machineos.vm.qemu.snapshot import monitor_line, require_silence


@pytest.mark.parametrize("tag", ["", "1", "a b", "a\nquit", "A", "a" * 33, "-a"])
def test_refused(tag: str) -> None:
    with pytest.raises(UsageError, match="cannot name a snapshot"):
        monitor_line("savevm", tag)


def test_good() -> None:
    assert monitor_line("savevm", "booted-1") == "savevm booted-1"
    assert monitor_line("loadvm", "a" * 32) == f"loadvm {'a' * 32}"


def test_what_qemu_says_is_an_error() -> None:
    require_silence("savevm a", "")
    with pytest.raises(MachineError) as caught:
        require_silence("savevm a", "Error: no disk")
    assert caught.value.message == "savevm a: Error: no disk"
