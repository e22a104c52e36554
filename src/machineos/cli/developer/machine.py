"""``machine``: virtual machines with UEFI Secure Boot and TPM 2.0, without a daemon.

Arguments in, text or JSON out; every decision is in ``machineos.vm``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

import click
import msgspec

from machineos.cli import app, options
from machineos.cli.developer import machine_shape
from machineos.cli.group import group
from machineos.core.clock import SystemClock
from machineos.core.files import read_named
from machineos.errors import ConflictError, DocumentError, MachineError, MachineOSError, UsageError

if TYPE_CHECKING:
    from machineos.vm.document import Base
    from machineos.vm.model import Machine
    from machineos.vm.provider import Accelerate, Provider
    from machineos.vm.store import MachineStore

_LIMIT = 1 << 20
_ENDING = 10.0  # seconds that QEMU has to end after its guest

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


def _names(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return the machines whose names begin so, for the shell."""
    return [name for name in machine_store().names() if name.startswith(begun)]


_NAME = click.argument("name", shell_complete=_names)


@group("machine", _HELP)
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

    Relative paths are made absolute. NAME may be left out where the definition has one.

    \b
    Examples:
      machine init vm1 -f machine.yaml
      machine init -m 1.0-insecure scratch
    """
    store = machine_store()
    machine = _read(name, source, machine_type)
    if edit:
        machine = _edit(machine, machine.name)
    store.create(machine)
    click.echo(f"machine {machine.name} is defined; machine start {machine.name} starts it")


@cli.command("list")
@options.as_json
def list_machines(as_json: bool) -> None:
    """List all machines with their status."""
    store = machine_store()
    rows = [_row(store, name) for name in store.names()]
    if as_json:
        app.show_json([row.json() for row in rows])
        return
    app.show_table(machine_shape.LIST_COLUMNS, [row.cells() for row in rows])
    for row in rows:
        if row.status == "failed":
            app.say(f"{row.name}: {row.reason}")


@cli.command("info")
@_NAME
@options.as_json
def info(name: str, as_json: bool) -> None:
    """Show a machine: its definition, status, and the host ports that lead into it."""
    from machineos.vm.document import encode_machine, machine_dict

    store = machine_store()
    machine, provider = store.load(name), machine_provider(store, name)
    state, ports = provider.state(name), provider.ports(name)
    if as_json:
        shown = machine_shape.state_json(state, store.paths(name), ports)
        app.show_json({**machine_dict(machine), **shown})
        return
    click.echo(encode_machine(machine).decode(), nl=False)
    for line in machine_shape.state_lines(state, ports):
        click.echo(line)


@cli.command("edit")
@_NAME
def edit(name: str) -> None:
    """Change a definition in $VISUAL or $EDITOR. A machine that runs has to be stopped first."""
    store = machine_store()
    with store.lock(name):
        state = machine_provider(store, name).state(name)
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
@_NAME
@click.option(
    "--accelerator",
    type=click.Choice(["auto", "kvm", "tcg"]),
    default="auto",
    show_default=True,
    help="What runs the guest's instructions; auto finds out by running a tiny guest.",
)
def start(name: str, accelerator: Literal["auto", "kvm", "tcg"]) -> None:
    """Start a machine; it goes on running when this command has ended."""
    _start(machine_store(), name, "" if accelerator == "auto" else accelerator)


@cli.command("run")
@click.argument("name")
@click.argument("config")
def run(name: str, config: str) -> None:
    """Define a machine from the file CONFIG (- is standard input) and start it."""
    store = machine_store()
    machine = _read(name, config, "1.0")
    store.create(machine)
    _start(store, machine.name)


@cli.command("stop")
@_NAME
@click.option("-f", "--force", is_flag=True, help="Do not ask the guest: end it at once.")
@click.option(
    "--timeout", type=click.FloatRange(0, 3600), default=60.0, show_default=True,
    help="Seconds that the guest has for powering off.",
)  # fmt: skip
def stop(name: str, force: bool, timeout: float) -> None:
    """Stop a machine: ask the guest to power off, then end it, and say which it was."""
    how = machine_provider(machine_store(), name).stop(name, timeout=0 if force else timeout)
    click.echo(machine_shape.stop_line(name, how, force=force, timeout=timeout))


@cli.command("delete")
@_NAME
@click.option("-f", "--force", is_flag=True, help="Stop the machine first if it runs.")
def delete(name: str, force: bool) -> None:
    """Delete a machine with its disks, its TPM and its UEFI variables."""
    provider = machine_provider(machine_store(), name)
    if force:
        provider.stop(name, timeout=0)
    provider.delete(name)


@cli.command("console")
@_NAME
def console(name: str) -> None:
    """Connect to the serial port of a machine that runs; Ctrl-] leaves."""
    from machineos.vm.provider import require_running

    provider = machine_provider(machine_store(), name)
    require_running(provider, name)
    if sys.stdin.isatty():
        app.say(f"the console of {name}; Ctrl-] leaves")
    left = provider.console(name).attach(source=sys.stdin.fileno(), sink=sys.stdout.fileno())
    if left != "closed":
        return
    provider.wait(name, _ENDING)
    state = provider.state(name)
    if state.status == "failed":
        raise MachineError(f"machine {name} is failed: {state.reason}")
    app.say(f"\nmachine {name} is {state.status}: {state.reason}")


@cli.command("gui")
@_NAME
def gui(name: str) -> None:
    """Show where the screen of a machine is: a VNC server on a unix socket."""
    from machineos.vm.provider import require_running

    store = machine_store()
    if not store.load(name).config.gui:
        raise MachineError(
            f"machine {name} has no screen", hint=f"set gui to true with: machine edit {name}"
        )
    require_running(machine_provider(store, name), name)
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


def machine_provider(store: MachineStore, name: str) -> Provider:
    """Return what runs the machine ``name``. Raises: MissingError."""
    from machineos.vm.providers import provider_of

    return provider_of(name, store, SystemClock())


def _base() -> Base:
    from machineos.vm.document import Base

    return Base(Path.cwd(), app.home().user)


def _start(store: MachineStore, name: str, accelerator: Accelerate = "") -> None:
    from machineos.vm.provider import StartOptions

    provider = machine_provider(store, name)
    started = provider.start(name, StartOptions(accelerator=accelerator))
    for notice in started.notices:
        app.say(f"machine: {notice}")
    click.echo(f"machine {name} is running")
    for line in machine_shape.forward_lines(provider.ports(name)):
        click.echo(f"  {line}")


def _read(name: str | None, source: str | None, machine_type: str) -> Machine:
    from machineos.vm.document import decode_machine
    from machineos.vm.model import default_machine

    data = _input(source)
    if not data.strip() and source is None:
        if name is None:
            raise UsageError("the machine has no name", hint="say it: machine init NAME")
        return default_machine(name, secure=machine_type == "1.0")
    title = source if source not in {None, "-"} else "standard input"
    machine = decode_machine(data, name=str(title), machine=name or "", base=_base())
    if name is not None and machine.name != name:
        config = msgspec.structs.replace(machine.config, name=name)
        machine = msgspec.structs.replace(machine, name=name, config=config)
    return machine


def _input(source: str | None) -> bytes:
    if source is not None and source != "-":
        return read_named(Path(source), _LIMIT)
    if source is None and sys.stdin.isatty():
        return b""
    return sys.stdin.buffer.read(_LIMIT + 1)


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
            app.say(error.message)
            if not click.confirm("Edit again?", default=True):
                raise


def _row(store: MachineStore, name: str) -> machine_shape.Row:
    try:
        machine = store.load(name)
        state = machine_provider(store, name).state(name)
    except MachineOSError as error:
        return machine_shape.Row(name, "failed", "", error.message)
    return machine_shape.Row(name, state.status, machine.description, state.reason)
