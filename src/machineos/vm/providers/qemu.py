"""``type: kvm``: QEMU and swtpm (``machineos.vm.provider.Provider``).

Each method takes the machine's lock for as long as it changes something; what it does is in
``machineos.vm.qemu``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.host.virt import qmpsocket
from machineos.vm import hostports
from machineos.vm.ports import LOOPBACK, check_free, forwards
from machineos.vm.provider import AS_DEFINED, STOP_TIMEOUT, Started, StartOptions
from machineos.vm.qemu import lifecycle, moves, placement, process, snapshot, uefi
from machineos.vm.qemu.accel import find_accelerator
from machineos.vm.qemu.accelerator import Accelerator
from machineos.vm.qemu.console import QemuConsole
from machineos.vm.qemu.look import look

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from machineos.core.clock import Clock
    from machineos.vm.model import Machine, Port
    from machineos.vm.ports import Transport
    from machineos.vm.provider import HowStopped, SecureBootKeys, State
    from machineos.vm.store import MachineStore


class QemuProvider:
    """The machines in ``store``, on this host. For what the methods promise see ``Provider``.

    A QEMU that was told to quit has ``firm`` seconds for it.
    """

    def __init__(self, store: MachineStore, clock: Clock, *, firm: float = moves.FIRM) -> None:
        self._store = store
        self._clock = clock
        self._firm = firm

    def names(self) -> Sequence[str]:
        """Return the names of all machines."""
        return self._store.names()

    def define(self, machine: Machine) -> None:
        """Keep a definition."""
        if machine.name not in self._store.names():
            self._store.create(machine)
            return
        with self._store.lock(machine.name):
            self._store.replace(machine)

    def create(self, name: str) -> None:
        """Make what is missing on the disk."""
        machine = self._store.load(name)
        with self._store.lock(name):
            lifecycle.place(machine, self._store.paths(name))

    def start(self, name: str, options: StartOptions = AS_DEFINED) -> Started:
        """Start QEMU, and swtpm before it."""
        machine = self._store.load(name)
        paths = self._store.paths(name)
        with self._store.lock(name):
            notices = moves.require_startable(name, look(paths, self._clock))
            check_free(machine, hostports.is_free)
            chosen = self._accelerator(options)
            lifecycle.start(machine, paths, self._clock, accelerator=chosen.kind, options=options)
        if chosen.notice:
            notices = (*notices, chosen.notice)
        return Started(machine, notices)

    def stop(self, name: str, *, timeout: float = STOP_TIMEOUT) -> HowStopped:
        """Stop QEMU, and swtpm after it."""
        paths = self._store.require(name)
        with self._store.lock(name):
            return lifecycle.stop(paths, self._clock, timeout=timeout, firm=self._firm)

    def pull_plug(self, name: str) -> None:
        """Kill QEMU: nothing is written back."""
        paths = self._store.require(name)
        with self._store.lock(name):
            lifecycle.pull_plug(paths, self._clock)

    def wait(self, name: str, timeout: float) -> bool:
        """Wait for QEMU's end."""
        running = look(self._store.require(name), self._clock).qemu
        return running is None or process.wait(running, timeout, self._clock)

    def delete(self, name: str) -> None:
        """Remove all files of a machine."""
        paths = self._store.require(name)
        with self._store.lock(name):
            moves.require_deletable(name, look(paths, self._clock))
            self._store.remove(name)

    def state(self, name: str, *, ask: bool = True) -> State:
        """Look at the processes, the logs and QEMU itself."""
        return look(self._store.require(name), self._clock, ask=ask).state

    def console(self, name: str) -> QemuConsole:
        """Return the serial port."""
        return QemuConsole(name, self._store.require(name), self._clock)

    def save(self, name: str, tag: str) -> None:
        """Save a snapshot into the machine's qcow2 images."""
        self._monitor(name, snapshot.monitor_line("savevm", tag))

    def load(self, name: str, tag: str) -> None:
        """Load a snapshot from the machine's qcow2 images."""
        self._monitor(name, snapshot.monitor_line("loadvm", tag))

    def ports(self, name: str) -> Sequence[Port]:
        """Return what QEMU's user network forwards."""
        return tuple(forwards(self._store.load(name)))

    def is_free(self, protocol: Transport, port: int, address: str = LOOPBACK) -> bool:
        """Whether this host has a port free."""
        return hostports.is_free(protocol, port, address)

    def disks(self, name: str) -> Sequence[Path]:
        """Return the images that QEMU is given."""
        machine, paths = self._store.load(name), self._store.paths(name)
        return tuple(placement.place_of(disk, paths) for disk in machine.config.disks)

    def write_variables(self, output: Path, keys: SecureBootKeys) -> None:
        """Enroll the keys into OVMF's empty store."""
        uefi.prepare_uefi(output, keys)

    def _accelerator(self, options: StartOptions) -> Accelerator:
        if options.accelerator:
            return Accelerator(options.accelerator)
        return find_accelerator(self._store.cache)

    def _monitor(self, name: str, line: str) -> None:
        answer = qmpsocket.monitor(
            self._store.require(name).qmp, line, timeout=snapshot.TIMEOUT, clock=self._clock
        )
        snapshot.require_silence(line, answer)
