"""Where a machine's files cannot be made, it is said what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from machineos.errors import MachineError
from machineos.vm.model import default_machine
from machineos.vm.qemu.lifecycle import place
from machineos.vm.store import MachineStore


def test_a_long_home_and_no_session(tmp_path: Path) -> None:
    """The place of sockets is then one that an ordinary user cannot make."""
    taken = Path("/dev/null")  # nothing can be made below it
    home = tmp_path / ("d" * 100)
    machine = default_machine("vm1", secure=False)
    with pytest.raises(MachineError, match=r"/null/machine/.* cannot be made: Not a") as caught:
        place(machine, MachineStore(tmp_path, home, taken).paths("vm1"))
    assert caught.value.hint == (
        "a path of sockets has to be short: set XDG_RUNTIME_DIR to a folder that is yours"
    )


def test_a_folder_of_state_that_cannot_be_made(tmp_path: Path) -> None:
    taken = tmp_path / "state"
    taken.touch()
    machine = default_machine("vm1", secure=False)
    with pytest.raises(MachineError, match="cannot be made: Not a directory") as caught:
        place(machine, MachineStore(tmp_path, taken, tmp_path / "r").paths("vm1"))
    assert caught.value.hint == ""
