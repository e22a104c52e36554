"""What runs virtual machines, as an interface: commands and ``trust launch`` know nothing else.

A provider keeps machines by name: their definitions (machine.yaml), their disks, TPMs and UEFI
variables. One per value of machine.yaml's ``type``; ``providers`` has them. Every one passes
``tests/unit/vm/test_provider.py``, and so does the fake in memory that tests run on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from machineos.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from machineos.host.virt.uefivars import Enrolled
    from machineos.vm.model import Machine, Port, Status
    from machineos.vm.ports import Transport

STOP_TIMEOUT = 60.0

Accelerate = Literal["", "kvm", "tcg"]
HowStopped = Literal["not running", "powered off", "quit", "killed"]
Left = Literal["escape", "closed", "input ended"]


@dataclass(frozen=True, slots=True)
class StartOptions:
    """How to start this once: not part of the definition.

    ``paused`` stops before the first instruction, ``snapshot`` continues from a saved one,
    ``no_reboot`` makes a reboot of the guest an end. An empty ``accelerator`` takes the best that
    the host has.
    """

    paused: bool = False
    snapshot: str = ""
    no_reboot: bool = False
    accelerator: Accelerate = ""


AS_DEFINED = StartOptions()


@dataclass(frozen=True, slots=True)
class State:
    """What a machine is doing: a status, and why (for failed and stopped).

    ``pid`` is the process on this host that runs the guest, None when there is none.
    """

    status: Status
    reason: str = ""
    pid: int | None = None
    accelerator: str = ""

    @property
    def active(self) -> bool:
        """Whether something of this machine runs a guest."""
        return self.pid is not None

    @property
    def unended(self) -> bool:
        """Whether the guest runs or is about to end: more may come from it, without a fault."""
        return self.status in {"running", "stopping"}


@dataclass(frozen=True, slots=True)
class Started:
    """A machine that was started, and what the user should be told."""

    machine: Machine
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SecureBootKeys:
    """The keys of a variable store: whom the firmware believes."""

    pk: Enrolled
    kek: Enrolled
    db: Enrolled


class Console(Protocol):
    """The serial port of one machine."""

    @property
    def log(self) -> Path:
        """Where all that the guest wrote since its last start is kept, for a person to look at."""
        ...

    def text(self) -> str:
        """Return all that the guest wrote since its last start (the first 64 MiB)."""
        ...

    def send(self, text: str) -> None:
        """Type ``text``. Raises: MachineError when there is no guest."""
        ...

    def attach(self, *, source: int, sink: int) -> Left:
        """Couple two descriptors with the port until Ctrl-], the machine's end, or the input's.

        Raises: ConflictError when somebody else has it, MachineError when there is no guest.
        """
        ...

    def close(self) -> None:
        """Let go of the port. Anything but ``text`` takes it again."""
        ...


class Provider(Protocol):
    """Runs machines. Every method raises MissingError for a name that is not defined, ConflictError
    while another command works on the machine, and MachineError or ToolError when it cannot."""

    def names(self) -> Sequence[str]:
        """Return the names of all machines, sorted."""
        ...

    def define(self, machine: Machine) -> None:
        """Keep a definition, in the place of one of the same name. Nothing is made or started."""
        ...

    def create(self, name: str) -> None:
        """Make disks, variables and TPM of a machine where they are missing; ``start`` does it too.

        What is there is never overwritten.
        """
        ...

    def start(self, name: str, options: StartOptions = ...) -> Started:
        """Start a machine and return when the guest runs. When this fails nothing is left running.

        Raises: ConflictError when it runs already or a host port is taken.
        """
        ...

    def stop(self, name: str, *, timeout: float = STOP_TIMEOUT) -> HowStopped:
        """Ask the guest to power off, and end it when it has not after ``timeout`` seconds; 0 does
        not ask. Returns how it ended; a machine that had failed is stopped then."""
        ...

    def pull_plug(self, name: str) -> None:
        """End a machine as a power cut would."""
        ...

    def wait(self, name: str, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds until no guest runs; return whether that came."""
        ...

    def delete(self, name: str) -> None:
        """Remove a machine with its definition, disks, TPM and variables.

        Raises: ConflictError when it runs.
        """
        ...

    def state(self, name: str, *, ask: bool = True) -> State:
        """Return what a machine is doing; without ``ask`` quickly, from outside of it only."""
        ...

    def console(self, name: str) -> Console:
        """Return the serial port of a machine."""
        ...

    def save(self, name: str, tag: str) -> None:
        """Save the running guest as a snapshot, in the place of one of the same name.

        Raises: UsageError for what cannot name one.
        """
        ...

    def load(self, name: str, tag: str) -> None:
        """Put the running guest back to a snapshot. Raises: UsageError."""
        ...

    def ports(self, name: str) -> Sequence[Port]:
        """Return the ports of this host that lead into a machine."""
        ...

    def is_free(self, protocol: Transport, port: int, address: str = ...) -> bool:
        """Whether a machine could get this port of the host now."""
        ...

    def disks(self, name: str) -> Sequence[Path]:
        """Return where the disks of a machine are, in the order of its definition."""
        ...

    def write_variables(self, output: Path, keys: SecureBootKeys) -> None:
        """Write a store for ``uefi-vars``: these keys enrolled and no others, Secure Boot on."""
        ...


def require_running(provider: Provider, name: str) -> State:
    """Return the state of a machine that runs. Raises: MachineError that says why it does not."""
    state = provider.state(name)
    if state.status != "running":
        why = f": {state.reason}" if state.reason else ""
        raise MachineError(
            f"machine {name} is {state.status}{why}", hint=f"start it with: machine start {name}"
        )
    return state
