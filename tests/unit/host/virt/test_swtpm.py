"""swtpm: absolute paths, one bank."""

from __future__ import annotations

from pathlib import Path

import pytest

from machineos.core.command import Command
from machineos.errors import MachineError
from machineos.host.virt import swtpm


def test_argv_socket() -> None:
    argv = swtpm.argv_socket(Path("/s/tpm"), Path("/r/tpm.sock"), Path("/s/log"), Path("/s/pid"))
    assert argv == [
        "swtpm", "socket", "--tpm2", "--tpmstate", "dir=/s/tpm,mode=0600",
        "--ctrl", "type=unixio,path=/r/tpm.sock,mode=0600", "--log", "file=/s/log,level=1",
        "--pid", "file=/s/pid", "--terminate",
    ]  # fmt: skip


def test_setup_command() -> None:
    assert swtpm.setup_command(Path("/s"), Path("/l"), "u") == Command(
        (
            "swtpm_setup", "--tpm2", "--tpmstate", "/s", "--pcr-banks", "sha256", "--logfile", "/l",
            "--runas", "u",
        ),
        600.0,
    )  # fmt: skip


@pytest.mark.parametrize("state", ["tpm", "/s,mode=0777"])
def test_relative_paths_and_commas_are_refused(state: str) -> None:
    with pytest.raises(MachineError, match="absolute path without a comma"):
        swtpm.setup_command(Path(state), Path("/log"), "root")
    with pytest.raises(MachineError, match="absolute path without a comma"):
        swtpm.argv_socket(Path("/s"), Path(state), Path("/log"), Path("/pid"))
