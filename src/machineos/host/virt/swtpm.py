"""swtpm, the software TPM 2.0: one process per machine, its state in a folder of the caller.

swtpm changes its directory, so every path given to it is absolute. With ``--terminate`` it ends
when QEMU closes the control connection, however QEMU ended.
"""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

from machineos.core import run
from machineos.errors import MachineError

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = "swtpm"
STATE_FILE = "tpm2-00.permall"
_SETUP_TIMEOUT = 600.0  # it makes keys


def argv_setup(state: Path, log: Path, user: str) -> list[str]:
    """Return the call that makes the state of a new TPM with SHA-256 as its only bank.

    No endorsement or platform certificate is made: the appliance takes the TPM's keys at
    provisioning, and a certificate by a local throw-away authority would vouch for nothing.
    """
    return [
        "swtpm_setup",
        "--tpm2",
        "--tpmstate",
        _absolute(state),
        "--pcr-banks",
        "sha256",
        "--logfile",
        _absolute(log),
        "--runas",
        user,
    ]


def argv_socket(state: Path, control: Path, log: Path, pid: Path) -> list[str]:
    """Return the call that serves the TPM in ``state`` on the unix socket ``control``."""
    return [
        PROGRAM,
        "socket",
        "--tpm2",
        "--tpmstate",
        f"dir={_absolute(state)},mode=0600",
        "--ctrl",
        f"type=unixio,path={_absolute(control)},mode=0600",
        "--log",
        f"file={_absolute(log)},level=1",
        "--pid",
        f"file={_absolute(pid)}",
        "--terminate",
    ]


def setup(state: Path, log: Path) -> None:
    """Make a new TPM in ``state`` unless there is one already.

    Raises: MissingToolError, ToolError, ToolTimeoutError.
    """
    if (state / STATE_FILE).exists():
        return
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    user = pwd.getpwuid(os.getuid()).pw_name  # as root, swtpm_setup would give all files to tss
    run.run(argv_setup(state, log, user), timeout=_SETUP_TIMEOUT)


def _absolute(path: Path) -> str:
    text = os.fspath(path)
    if not path.is_absolute() or "," in text:
        raise MachineError(f"{text}: swtpm needs an absolute path without a comma")
    return text
