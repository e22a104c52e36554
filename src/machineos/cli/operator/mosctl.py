"""``mosctl``: what an operator does on the appliance. For now: look.

Imports what a command needs inside the command: ``--help`` has to be quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from machineos.cli import app
from machineos.cli.operator.mosctl_install import install

if TYPE_CHECKING:
    from machineos.document.between.status import ServiceStatus, Status

_FILE = click.option(
    "--status-file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("/run/machineos/status.json"),
    show_default=True,
    help="Where the service manager writes what it sees.",
)


@app.group("mosctl", "Operate this machine: its services and its state.")
def mosctl() -> None:
    """Hold the commands."""


@mosctl.command("status")
@_FILE
@app.json_option
def status(*, status_file: Path, as_json: bool) -> None:
    """Show whether the machine works: generation, services, problems.

    The exit status is 0 also when a service is down; scripts read --json.
    """
    found = _read(status_file)
    if as_json:
        app.show_json(_plain(found))
        return
    state = "good" if found.good else ("degraded" if found.settled else "starting")
    click.echo(f"product     {found.product}")
    click.echo(f"generation  {found.generation}")
    click.echo(f"state       {state} (seen {found.updated})")
    for problem in found.problems:
        click.echo(f"problem     {problem}")
    _table(found)


mosctl.add_command(install)


@mosctl.group("service")
def service() -> None:
    """Show the services of this machine."""


@service.command("list")
@_FILE
@app.json_option
def service_list(*, status_file: Path, as_json: bool) -> None:
    """List the services with version, state and address."""
    found = _read(status_file)
    if as_json:
        app.show_json(_plain(found)["services"])
        return
    _table(found)


@service.command("status")
@click.argument("name")
@_FILE
@app.json_option
def service_status(name: str, *, status_file: Path, as_json: bool) -> None:
    """Show one service: why it is in its state, where its log is."""
    from machineos.errors import MissingError

    found = _read(status_file)
    one = next((item for item in found.services if item.name == name), None)
    if one is None:
        known = ", ".join(item.name for item in found.services) or "none"
        raise MissingError(f"there is no service {name!r} on this machine", hint=f"it has: {known}")
    if as_json:
        import msgspec

        app.show_json(msgspec.to_builtins(one))
        return
    for key, value in _details(one):
        if value:
            click.echo(f"{key:<10}  {value}")


def _details(one: ServiceStatus) -> list[tuple[str, str]]:
    owner = f"{one.nsgroup} (from {one.hostid})" if one.hostid else "host ids"
    return [
        ("name", one.name),
        ("version", one.version),
        ("state", one.state),
        ("why", one.why),
        ("ids", owner),
        ("network", " ".join((one.network, *one.addresses))),
        ("ports", ", ".join(one.ports)),
        ("pid", str(one.pid or "")),
        ("restarts", str(one.restarts or "")),
        ("unit", one.unit),
        ("log", f"journalctl -u {one.unit}" if one.unit else ""),
        *(("note", note) for note in one.notes),
    ]


def _table(found: Status) -> None:
    rows: list[tuple[str, ...]] = [
        (item.name, item.version, item.state, next(iter(item.addresses), "-"), item.why or "-")
        for item in found.services
    ]
    app.show_table(("NAME", "VERSION", "STATE", "ADDRESS", "WHY"), rows)


def _plain(found: Status) -> dict[str, object]:
    import msgspec

    result: dict[str, object] = msgspec.to_builtins(found)
    return result


def _read(path: Path) -> Status:
    from machineos.core.files import read_bounded
    from machineos.document.between.status import MAX_SIZE, parse_status
    from machineos.errors import MissingError

    try:
        data = read_bounded(path, MAX_SIZE)
    except MissingError as error:
        raise MissingError(
            f"{path} does not exist: the service manager has not run on this machine",
            hint="on an appliance: journalctl -u mosd",
        ) from error
    return parse_status(data, name=str(path))


def main() -> NoReturn:
    """Run mosctl: the console script."""
    app.main(mosctl)
