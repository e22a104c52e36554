"""``mosctl``: what an operator does on the appliance. For now: look.

Imports what a command needs inside the command: ``--help`` has to be quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from machineos.cli import app, options
from machineos.cli.group import group
from machineos.cli.operator import shape
from machineos.cli.operator.mosctl_check import check
from machineos.cli.operator.mosctl_install import install

if TYPE_CHECKING:
    from machineos.document.between.status import Status

_FILE = click.option(
    "--status-file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("/run/machineos/status.json"),
    show_default=True,
    help="Where the service manager writes what it sees.",
)


@group("mosctl", "Operate this machine: its services and its state.")
def mosctl() -> None:
    """Hold the commands."""


@mosctl.command("status")
@_FILE
@options.as_json
def status(*, status_file: Path, as_json: bool) -> None:
    """Show whether the machine works: generation, services, problems.

    The exit status is 0 also when a service is down; scripts read --json.
    """
    found = _read(status_file)
    if as_json:
        app.show_json(shape.status_json(found))
        return
    for line in shape.head(found):
        app.show(line)
    app.show_table(shape.COLUMNS, shape.rows(found))


mosctl.add_command(install)
mosctl.add_command(check)


@mosctl.group("service")
def service() -> None:
    """Show the services of this machine."""


@service.command("list")
@_FILE
@options.as_json
def service_list(*, status_file: Path, as_json: bool) -> None:
    """List the services with version, state and address."""
    found = _read(status_file)
    if as_json:
        app.show_json(shape.status_json(found)["services"])
        return
    app.show_table(shape.COLUMNS, shape.rows(found))


@service.command("status")
@click.argument("name")
@_FILE
@options.as_json
def service_status(name: str, *, status_file: Path, as_json: bool) -> None:
    """Show one service: why it is in its state, where its log is."""
    from machineos.errors import MissingError

    found = _read(status_file)
    one = next((item for item in found.services if item.name == name), None)
    if one is None:
        known = ", ".join(item.name for item in found.services) or "none"
        raise MissingError(f"there is no service {name!r} on this machine", hint=f"it has: {known}")
    if as_json:
        app.show_json(shape.service_json(one))
        return
    for line in shape.details(one):
        app.show(line)


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
