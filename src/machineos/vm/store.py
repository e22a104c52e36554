"""Where machines are kept, by the names of ``paths``.

Invariant: a machine exists exactly when its machine.yaml does, and that file appears and changes
atomically.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from machineos.core.files import locked, read_bounded, write_atomic
from machineos.errors import ConflictError, MachineError, MissingError
from machineos.vm.document import decode_machine, encode_machine
from machineos.vm.model import NAME
from machineos.vm.paths import Roots

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from machineos.vm.model import Machine
    from machineos.vm.paths import MachinePaths

_MAX_YAML = 1 << 20


class MachineStore(Roots):
    """All machines of one user."""

    __slots__ = ()

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
