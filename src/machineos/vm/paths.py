"""Where the files of machines are: names only, nothing here touches a disk.

One folder for the definition, one for the state, sockets apart when their path would be too long.
The layout is the predecessor's: ``CONFIG/machine/machines/NAME/machine.yaml`` and
``STATE/machine/machines/NAME/NAME/``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from machineos.errors import MachineError, UsageError
from machineos.vm.model import NAME

MAX_SOCKET_PATH = 107
LONGEST_SOCKET = "console.sock"


@dataclass(frozen=True, slots=True)
class MachinePaths:
    """Every file of one machine."""

    definition: Path
    state: Path
    sockets: Path
    lock: Path

    @property
    def record(self) -> Path:
        """What was started last: processes, phase, reason."""
        return self.state / "run.json"

    @property
    def uefi_code(self) -> Path:
        """The firmware, copied once so that an upgrade of the host does not change PCR 0."""
        return self.state / "uefi-code.fd"

    @property
    def uefi_nvram(self) -> Path:
        """The firmware's variables, as qcow2 so that a snapshot holds them."""
        return self.state / "uefi-nvram.qcow2"

    @property
    def tpm(self) -> Path:
        """The TPM's state."""
        return self.state / "tpm"

    @property
    def console_log(self) -> Path:
        """All that the guest wrote to its serial port since the last start."""
        return self.state / "console.log"

    @property
    def qemu_log(self) -> Path:
        """What QEMU wrote to standard error since the last start."""
        return self.state / "qemu.log"

    @property
    def swtpm_log(self) -> Path:
        """What swtpm logged."""
        return self.state / "swtpm.log"

    @property
    def qemu_pid(self) -> Path:
        """QEMU's own process id file."""
        return self.state / "qemu.pid"

    @property
    def swtpm_pid(self) -> Path:
        """The TPM's own process id file."""
        return self.state / "swtpm.pid"

    @property
    def events(self) -> Path:
        """Stem of the event log: ``.in`` is a FIFO, ``.out`` the log."""
        return self.state / "events"

    @property
    def event_log(self) -> Path:
        """Every QMP event since the last start."""
        return self.state / "events.out"

    @property
    def qmp(self) -> Path:
        """The machine protocol's socket."""
        return self.sockets / "qmp.sock"

    @property
    def console(self) -> Path:
        """The serial port's socket."""
        return self.sockets / "console.sock"

    @property
    def tpm_control(self) -> Path:
        """The TPM's control socket."""
        return self.sockets / "tpm.sock"

    @property
    def vnc(self) -> Path:
        """The screen's socket, when the machine has one."""
        return self.sockets / "vnc.sock"

    def disk(self, file: str) -> Path:
        """Return where the disk ``file`` of machine.yaml is."""
        return Path(file) if file.startswith("/") else self.state / file


def fits_a_socket(folder: Path) -> bool:
    """Whether all sockets of a machine can be in ``folder``: a path has at most 107 bytes."""
    return len(bytes(folder / LONGEST_SOCKET)) <= MAX_SOCKET_PATH


@dataclass(frozen=True, slots=True)
class Roots:
    """The folders that hold all machines of one user."""

    config_root: Path
    state_root: Path
    runtime_root: Path

    @property
    def definitions(self) -> Path:
        """The folder of definitions."""
        return self.config_root / "machine" / "machines"

    @property
    def cache(self) -> Path:
        """What is known about this host."""
        return self.state_root / "machine"

    def paths(self, name: str) -> MachinePaths:
        """Return the files of the machine ``name``, whether it exists or not.

        Raises: UsageError for what is not a name, MachineError when no socket path is short enough.
        """
        if not NAME.fullmatch(name):
            raise UsageError(f"{name[:80]!r} is not the name of a machine")
        state = self.cache / "machines" / name / name
        return MachinePaths(
            definition=self.definitions / name / "machine.yaml",
            state=state,
            sockets=self._sockets(state),
            lock=self.cache / "locks" / name,  # apart, so that it outlives a machine's removal
        )

    def _sockets(self, state: Path) -> Path:
        short = hashlib.sha256(bytes(state)).hexdigest()[:16]
        for folder in (state / "sockets", self.runtime_root / "machine" / short):
            if fits_a_socket(folder):
                return folder
        raise MachineError(
            f"{self.runtime_root}: too long for unix sockets",
            hint="set XDG_RUNTIME_DIR to a short folder",
        )
