"""``machine``: virtual machines with UEFI Secure Boot and TPM 2.0, without a daemon.

Arguments in, text or JSON out; every decision is in ``machineos.vm``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

import click
import msgspec

from machineos.cli import app
from machineos.core.clock import SystemClock
from machineos.core.files import read_bounded
from machineos.errors import ConflictError, DocumentError, MachineError, MachineOSError, UsageError

if TYPE_CHECKING:
    from machineos.vm.document import Base
    from machineos.vm.model import Machine
    from machineos.vm.state import State
    from machineos.vm.store import MachineStore

_LIMIT = 1 << 20

_HELP = """Virtual machines with UEFI Secure Boot and TPM 2.0.

A machine is defined by machine.yaml. There is no daemon: each command looks at QEMU and swtpm
themselves, and says so when one of them has died.

\b
Examples:
  machine init vm1 -f machine.yaml
  machine start vm1
  machine console vm1        (Ctrl-] leaves)
  machine stop vm1
  machine delete vm1

\b
Exit codes: 0 good, 2 usage, 3 faults in machine.yaml, 5 no such machine, 6 exists or is in use,
8 a program failed, 9 the machine is not in the state that was needed, 130 interrupted.
"""


@app.group("machine", _HELP)
def cli() -> None:
    """Virtual machines."""


@cli.command("init")
@click.argument("name", required=False)
@click.option("-f", "--file", "source", help="machine.yaml to take; - is standard input.")
@click.option("-e", "--edit", is_flag=True, help="Open the definition in $VISUAL or $EDITOR first.")
@click.option(
    "-m",
    "--machine-type",
    type=click.Choice(["1.0", "1.0-insecure"]),
    default="1.0",
    show_default=True,
    help="The definition to take without a file; insecure has no Secure Boot.",
)
def init(name: str | None, source: str | None, edit: bool, machine_type: str) -> None:
    """Define a machine; nothing is started.

    Relative paths are made absolute; without NAME the definition's name, or the next free vmN.

    \b
    Examples:
      machine init vm1 -f machine.yaml
      machine init -m 1.0-insecure scratch
    """
    store = machine_store()
    machine = _read(store, name, source, machine_type)
    if edit:
        machine = _edit(machine, machine.name)
    store.create(machine)
    click.echo(f"machine {machine.name} is defined; machine start {machine.name} starts it")


@cli.command("list")
@app.json_option
def list_machines(as_json: bool) -> None:
    """List all machines with their status."""
    store = machine_store()
    rows = [_row(store, name) for name in store.names()]
    if as_json:
        keys = ("name", "status", "description", "reason")
        app.show_json([dict(zip(keys, row, strict=True)) for row in rows])
        return
    table: list[tuple[str, ...]] = [(name, status, about) for name, status, about, _ in rows]
    app.show_table(("NAME", "STATUS", "DESCRIPTION"), table)
    for name, status, _, reason in rows:
        if status == "failed":
            click.echo(f"{name}: {reason}", err=True)


@cli.command("info")
@click.argument("name")
@app.json_option
def info(name: str, as_json: bool) -> None:
    """Show a machine: its definition, status, and the host ports that lead into it."""
    from machineos.vm import lifecycle
    from machineos.vm.document import encode_machine, machine_dict

    store = machine_store()
    machine = store.load(name)
    state = lifecycle.state_of(store, name)
    forwards = _forwards(machine)
    if as_json:
        app.show_json({**machine_dict(machine), **_state_json(store, name, state, forwards)})
        return
    click.echo(encode_machine(machine).decode(), nl=False)
    click.echo(f"status: {state.status}")
    if state.reason:
        click.echo(f"# {state.reason}")
    for forward in forwards:
        click.echo(
            f"# {forward['protocol']} {forward['host']} of this host is port "
            f"{forward['guest']} of the machine"
        )


@cli.command("edit")
@click.argument("name")
def edit(name: str) -> None:
    """Change a definition in $VISUAL or $EDITOR. A machine that runs has to be stopped first."""
    from machineos.vm import lifecycle

    store = machine_store()
    with store.lock(name):
        state = lifecycle.state_of(store, name)
        if state.active:
            raise ConflictError(
                f"machine {name} is {state.status}", hint=f"stop it with: machine stop {name}"
            )
        machine = store.load(name)
        changed = _edit(machine, name)
        if changed.name != name:
            raise UsageError(f"the name of machine {name} cannot be changed")
        if changed == machine:
            click.echo("nothing was changed")
            return
        store.replace(changed)


@cli.command("start")
@click.argument("name")
@click.option(
    "--accelerator",
    type=click.Choice(["auto", "kvm", "tcg"]),
    default="auto",
    show_default=True,
    help="What runs the guest's instructions; auto finds out by running a tiny guest.",
)
def start(name: str, accelerator: Literal["auto", "kvm", "tcg"]) -> None:
    """Start a machine; it goes on running when this command has ended."""
    _start(machine_store(), name, accelerator)


@cli.command("run")
@click.argument("name")
@click.argument("config")
def run(name: str, config: str) -> None:
    """Define a machine from the file CONFIG (- is standard input) and start it."""
    store = machine_store()
    machine = _read(store, name, config, "1.0")
    store.create(machine)
    _start(store, machine.name)


@cli.command("stop")
@click.argument("name")
@click.option("-f", "--force", is_flag=True, help="Do not ask the guest: end it at once.")
@click.option(
    "--timeout", type=click.FloatRange(0, 3600), default=60.0, show_default=True,
    help="Seconds that the guest has for powering off.",
)  # fmt: skip
def stop(name: str, force: bool, timeout: float) -> None:
    """Stop a machine: ask the guest to power off, then end it, and say which it was."""
    from machineos.vm import lifecycle

    how = lifecycle.stop(machine_store(), name, SystemClock(), force=force, timeout=timeout)
    words = {
        "not running": "was not running",
        "powered off": "has powered off",
        "quit": "was ended" if force else f"did not power off within {timeout:g} s and was ended",
        "killed": "did not react and was killed",
    }
    click.echo(f"machine {name} {words[how]}")


@cli.command("delete")
@click.argument("name")
@click.option("-f", "--force", is_flag=True, help="Stop the machine first if it runs.")
def delete(name: str, force: bool) -> None:
    """Delete a machine with its disks, its TPM and its UEFI variables."""
    from machineos.vm import lifecycle

    store = machine_store()
    if force:
        lifecycle.stop(store, name, SystemClock(), force=True)
    lifecycle.delete(store, name)


@cli.command("console")
@click.argument("name")
def console(name: str) -> None:
    """Connect to the serial port of a machine that runs; Ctrl-] leaves."""
    from machineos.vm import console as serial
    from machineos.vm import lifecycle

    store = machine_store()
    lifecycle.require_running(store, name)
    paths = store.paths(name)
    if sys.stdin.isatty():
        click.echo(f"the console of {name}; Ctrl-] leaves", err=True)
    left = serial.attach(paths, source=sys.stdin.fileno(), sink=sys.stdout.fileno())
    if left != "closed":
        return
    state = lifecycle.state_of(store, name)
    if state.status == "failed":
        raise MachineError(f"machine {name} is failed: {state.reason}")
    click.echo(f"\nmachine {name} is {state.status}: {state.reason}", err=True)


@cli.command("gui")
@click.argument("name")
def gui(name: str) -> None:
    """Show where the screen of a machine is: a VNC server on a unix socket."""
    from machineos.vm import lifecycle

    store = machine_store()
    if not store.load(name).config.gui:
        raise MachineError(
            f"machine {name} has no screen", hint=f"set gui to true with: machine edit {name}"
        )
    lifecycle.require_running(store, name)
    click.echo(f"a VNC viewer finds the screen of {name} at the unix socket")
    click.echo(str(store.paths(name).vnc))


def main() -> NoReturn:
    """Run the command."""
    app.main(cli)


def machine_store() -> MachineStore:
    """Return the machines of the calling user."""
    from machineos.vm.store import MachineStore

    home = app.home()
    return MachineStore(home.config, home.state, home.runtime)


def _base() -> Base:
    from machineos.vm.document import Base

    return Base(Path.cwd(), app.home().user)


def _start(
    store: MachineStore, name: str, accelerator: Literal["auto", "kvm", "tcg"] = "auto"
) -> None:
    from machineos.vm import lifecycle
    from machineos.vm.accel import Accelerator

    chosen = None if accelerator == "auto" else Accelerator(accelerator)
    started = lifecycle.start(store, name, SystemClock(), accelerator=chosen)
    for notice in started.notices:
        click.echo(f"machine: {notice}", err=True)
    click.echo(f"machine {name} is running")
    for forward in _forwards(started.machine):
        click.echo(f"  {forward['protocol']} {forward['host']} -> {forward['guest']}")


def _read(store: MachineStore, name: str | None, source: str | None, machine_type: str) -> Machine:
    from machineos.vm.document import decode_machine
    from machineos.vm.model import default_machine

    data = _input(source)
    fallback = name or _free_name(store)
    if not data.strip() and source is None:
        return default_machine(fallback, secure=machine_type == "1.0")
    title = source if source not in {None, "-"} else "standard input"
    machine = decode_machine(data, name=str(title), machine=fallback, base=_base())
    if name is not None and machine.name != name:
        config = msgspec.structs.replace(machine.config, name=name)
        machine = msgspec.structs.replace(machine, name=name, config=config)
    return machine


def _input(source: str | None) -> bytes:
    if source is not None and source != "-":
        return read_bounded(Path(source), _LIMIT)
    if source is None and sys.stdin.isatty():
        return b""
    return sys.stdin.buffer.read(_LIMIT + 1)


def _free_name(store: MachineStore) -> str:
    taken = set(store.names())
    return next(name for name in (f"vm{n}" for n in range(1, 10**6)) if name not in taken)


def _edit(machine: Machine, name: str) -> Machine:
    from machineos.vm.document import decode_machine, encode_machine

    text = encode_machine(machine).decode()
    while True:
        text = click.edit(text, extension=".yaml", require_save=False) or ""
        try:
            return decode_machine(text.encode(), name="machine.yaml", machine=name, base=_base())
        except DocumentError as error:
            if not sys.stdin.isatty():
                raise
            click.echo(error.message, err=True)
            if not click.confirm("Edit again?", default=True):
                raise


def _row(store: MachineStore, name: str) -> tuple[str, str, str, str]:
    from machineos.vm import lifecycle

    try:
        machine = store.load(name)
        state = lifecycle.state_of(store, name)
    except MachineOSError as error:
        return name, "failed", "", error.message
    return name, state.status, machine.description, state.reason


def _forwards(machine: Machine) -> list[dict[str, str]]:
    from machineos.vm import ports

    return [
        {
            "protocol": port.protocol,
            "host": f"{port.host.address or '127.0.0.1'}:{port.host.port}",
            "guest": f"{port.guest.address}:{port.guest.port}".removeprefix(":"),
        }
        for port in ports.forwards(machine)
    ]


def _state_json(
    store: MachineStore, name: str, state: State, forwards: list[dict[str, str]]
) -> dict[str, object]:
    paths = store.paths(name)
    return {
        "status": state.status,
        "reason": state.reason,
        "accelerator": state.accelerator,
        "pid": state.qemu.pid if state.qemu else None,
        "forwards": forwards,
        "console": str(paths.console),
        "console-log": str(paths.console_log),
        "state-folder": str(paths.state),
    }
