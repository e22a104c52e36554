"""Where machines are kept: one folder for the definition, one for the state, sockets apart when
their path would be too long.

The layout is the predecessor's: ``CONFIG/machine/machines/NAME/machine.yaml`` and
``STATE/machine/machines/NAME/NAME/``. Invariant: a machine exists exactly when its machine.yaml
does, and that file appears and changes atomically.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.core.files import locked, read_bounded, write_atomic
from machineos.errors import ConflictError, MachineError, MissingError, UsageError
from machineos.vm.document import decode_machine, encode_machine
from machineos.vm.model import NAME

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from machineos.vm.model import Machine

_MAX_YAML = 1 << 20
_MAX_SOCKET_PATH = 107
_LONGEST_SOCKET = "console.sock"


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


@dataclass(frozen=True, slots=True)
class MachineStore:
    """All machines of one user."""

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
        state = self.state_root / "machine" / "machines" / name / name
        return MachinePaths(
            definition=self.definitions / name / "machine.yaml",
            state=state,
            sockets=self._sockets(state),
            lock=self.cache / "locks" / name,  # apart, so that it outlives a machine's removal
        )

    def names(self) -> tuple[str, ...]:
        """Return the names of all machines, sorted."""
        if not self.definitions.is_dir():
            return ()
        found = (path.parent.name for path in self.definitions.glob("*/machine.yaml"))
        return tuple(sorted(name for name in found if NAME.fullmatch(name)))

    def require(self, name: str) -> MachinePaths:
        """Return the files of a machine that exists, whatever its definition says.

        Raises: MissingError, UsageError.
        """
        paths = self.paths(name)
        if not paths.definition.is_file():
            raise MissingError(f"there is no machine {name}", hint="machine list shows all of them")
        return paths

    def load(self, name: str) -> Machine:
        """Return the definition of a machine. Raises: MissingError, DocumentError, UsageError."""
        path = self.require(name).definition
        data = read_bounded(path, _MAX_YAML)
        machine = decode_machine(data, name=str(path), machine=name)
        if machine.name != name:
            raise MachineError(f"{path} defines {machine.name}, not {name}")
        return machine

    def create(self, machine: Machine) -> MachinePaths:
        """Add a machine. Raises: ConflictError when the name is taken."""
        paths = self.paths(machine.name)
        with self.lock(machine.name):
            if paths.definition.exists():
                raise ConflictError(
                    f"machine {machine.name} exists already", hint="delete it, or take another name"
                )
            self._write(machine, paths)
        return paths

    def replace(self, machine: Machine) -> None:
        """Change the definition of a machine; its lock is held by the caller.
        Raises: MissingError."""
        self._write(machine, self.require(machine.name))

    def remove(self, name: str) -> None:
        """Remove definition, disks, TPM and variables of a machine; its lock is held by the caller
        and nothing of it runs. The definition goes last but one, so that an interrupted removal
        can be repeated."""
        paths = self.paths(name)
        for folder in (paths.sockets, paths.state, paths.definition.parent, paths.state.parent):
            if folder.exists():
                shutil.rmtree(folder)

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Hold the machine's lock for the length of a block. Raises: ConflictError."""
        return locked(self.paths(name).lock, what=f"machine {name}")

    def _write(self, machine: Machine, paths: MachinePaths) -> None:
        paths.definition.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        paths.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(paths.definition, encode_machine(machine), mode=0o600)

    def _sockets(self, state: Path) -> Path:
        short = hashlib.sha256(bytes(state)).hexdigest()[:16]
        for folder in (state / "sockets", self.runtime_root / "machine" / short):
            if len(bytes(folder / _LONGEST_SOCKET)) <= _MAX_SOCKET_PATH:
                return folder
        raise MachineError(
            f"{self.runtime_root}: too long for unix sockets",
            hint="set XDG_RUNTIME_DIR to a short folder",
        )
