"""swtpm, the software TPM 2.0: one process per machine, its state in a folder of the caller.

swtpm changes its directory, so every path given to it is absolute. With ``--terminate`` it ends
when QEMU closes the control connection, however QEMU ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.core.command import Command
from machineos.errors import MachineError

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = "swtpm"
STATE_FILE = "tpm2-00.permall"
_SETUP_TIMEOUT = 600.0  # it makes keys


def setup_command(state: Path, log: Path, user: str) -> Command:
    """Return the call that makes the state of a new TPM with SHA-256 as its only bank.

    No endorsement or platform certificate is made: the appliance takes the TPM's keys at
    provisioning, and a certificate by a local throw-away authority would vouch for nothing.
    ``user`` gets the files: as root, swtpm_setup would give them all to tss.
    """
    argv = (
        "swtpm_setup", "--tpm2", "--tpmstate", _absolute(state), "--pcr-banks", "sha256",
        "--logfile", _absolute(log), "--runas", user,
    )  # fmt: skip
    return Command(argv, _SETUP_TIMEOUT)


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


def _absolute(path: Path) -> str:
    text = str(path)
    if not path.is_absolute() or "," in text:
        raise MachineError(f"{text}: swtpm needs an absolute path without a comma")
    return text
