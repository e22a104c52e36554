"""``trust launch``: an appliance as a virtual machine, provisioned, installed, ready to start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from machineos.cli import app, options
from machineos.cli.developer import keysets, machine_shape
from machineos.cli.developer.opener import access
from machineos.errors import DocumentError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.vm.model import Kind


@click.command("launch")
@click.argument("name")
@click.argument("url")
@keysets.project()
@click.option("--serial", "--uuid", default="", help="Serial number; a new identity without one.")
@click.option("--disk", default="20GiB", show_default=True, help="Size of the disk.")
@click.option("--memory", default=2048, show_default=True, help="Memory in MiB.")
@click.option("--cpus", default=2, show_default=True, help="Processors.")
@click.option("--skip-install", is_flag=True, help="Only provision the TPM.")
@options.registries
@options.passphrase_file
@click.option(
    "--type", "kind", type=click.Choice(["kvm"]), default="kvm", help="What runs the machine."
)
@options.as_json
def launch(
    *,
    name: str,
    url: str,
    project_name: str,
    serial: str,
    disk: str,
    memory: int,
    cpus: int,
    skip_install: bool,
    reach: options.Reach,
    passphrase_file: Path | None,
    kind: Kind,
    as_json: bool,
) -> None:
    """Create machine NAME, provision its TPM, install it from URL.

    URL is host:port/path:tag, as the guest sees the host (10.0.2.2 is this machine), or
    oci:DIR:path:tag, which goes onto the install medium. Host ports are forwarded to the ports
    that the manifest publishes; `machine info NAME` shows them.

    \b
    Examples:
      trust launch --project snakeoil:default vm1 10.0.2.2:5000/machine/install:1.0.0
      trust launch --project snakeoil:default vm1 oci:registry:machine/install:1.0.0
      machine start vm1
    """  # fmt: skip
    from machineos.cli.developer import progress
    from machineos.cli.developer.machine import machine_store
    from machineos.core.clock import SystemClock
    from machineos.core.size import parse_size
    from machineos.launch.machine import launch_machine
    from machineos.launch.request import Request
    from machineos.oci.model.place import Place
    from machineos.trust.keys.keyset import SystemRandomness
    from machineos.vm.providers import provider_for

    clock = SystemClock()
    started = clock.monotonic()
    try:
        disk_size = parse_size(disk)
    except ValueError as error:
        raise UsageError(f"--disk: {error}") from error
    try:
        place = Place.parse(url, plain_http=reach.plain_http)
    except DocumentError as error:
        raise UsageError(error.message) from error
    keyset, project = keysets.open_project(project_name)
    request = Request(
        name, place, keyset, project,
        serial=serial, disk=disk_size, memory=memory, cpus=cpus, install=not skip_install,
        passphrase=app.read_passphrase(passphrase_file),
    )  # fmt: skip
    with progress.shown(plain=as_json) as watch:

        def say(text: str) -> None:
            watch.say(f"[{clock.monotonic() - started:6.1f} s] {text}")

        machine = launch_machine(
            request, provider_for(kind, machine_store(), clock), clock, SystemRandomness(),
            access=access(reach), say=say,
        )  # fmt: skip
        if not as_json:
            say(f"machine {name} is ready; machine start {name} starts it")
    ports = [port for nic in machine.config.nics for port in nic.ports]
    if as_json:
        app.show_json({"name": name, "ports": machine_shape.published_json(ports)})
        return
    for port in ports:
        click.echo(f"127.0.0.1:{port.host.port} -> {port.guest.port}/{port.protocol}")
