"""swtpm: absolute paths, and a TPM whose files are ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from machineos.errors import MachineError
from machineos.host.virt import swtpm


def test_argv_socket() -> None:
    argv = swtpm.argv_socket(Path("/s/tpm"), Path("/r/tpm.sock"), Path("/s/log"), Path("/s/pid"))
    assert argv == [
        "swtpm", "socket", "--tpm2", "--tpmstate", "dir=/s/tpm,mode=0600",
        "--ctrl", "type=unixio,path=/r/tpm.sock,mode=0600", "--log", "file=/s/log,level=1",
        "--pid", "file=/s/pid", "--terminate",
    ]  # fmt: skip


@pytest.mark.parametrize("state", ["tpm", "/s,mode=0777"])
def test_relative_paths_and_commas_are_refused(state: str) -> None:
    with pytest.raises(MachineError, match="absolute path without a comma"):
        swtpm.argv_setup(Path(state), Path("/log"), "root")


@pytest.mark.tool("swtpm_setup")
def test_setup_makes_one_tpm_and_keeps_it(tmp_path: Path) -> None:
    state, log = tmp_path / "tpm", tmp_path / "swtpm.log"
    swtpm.setup(state, log)
    made = state / swtpm.STATE_FILE
    assert made.stat().st_uid == os.getuid()
    assert state.stat().st_mode & 0o777 == 0o700
    assert "Successfully activated PCR banks sha256 among" in log.read_text()
    before = made.read_bytes()
    swtpm.setup(state, log)
    assert made.read_bytes() == before
