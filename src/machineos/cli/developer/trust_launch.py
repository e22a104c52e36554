"""``trust launch``: an appliance as a virtual machine, provisioned, installed, ready to start."""

from __future__ import annotations

from pathlib import Path

import click

from machineos.cli import app
from machineos.errors import UsageError


@click.command("launch")
@click.argument("name")
@click.argument("url")
@click.option("--project", "project_name", required=True, help="keyset:project")
@click.option("--serial", "--uuid", default="", help="Serial number; a new identity without one.")
@click.option("--disk", default="20GiB", show_default=True, help="Size of the disk.")
@click.option("--memory", default=2048, show_default=True, help="Memory in MiB.")
@click.option("--cpus", default=2, show_default=True, help="Processors.")
@click.option("--skip-install", is_flag=True, help="Only provision the TPM.")
@click.option("--plain-http", is_flag=True, help="Let the guest speak HTTP to the registry.")
@click.option(
    "--passphrase-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File with the passphrase of the keyset.",
)
@click.option("--type", "kind", type=click.Choice(["kvm"]), default="kvm", help="Provider.")
@app.json_option
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
    plain_http: bool,
    passphrase_file: Path | None,
    kind: str,  # noqa: ARG001 (the only provider)
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
    from machineos.cli.developer.machine import machine_store
    from machineos.cli.developer.mosb_os import read_passphrase
    from machineos.core.clock import SystemClock
    from machineos.core.size import parse_size
    from machineos.launch.machine import Request, launch_machine
    from machineos.oci.model.place import Place
    from machineos.oci.registry.auth import Credentials, default_auth_paths
    from machineos.trust.keys.keyset import SystemRandomness, find_project

    clock = SystemClock()
    started = clock.monotonic()

    def say(text: str) -> None:
        click.echo(f"[{clock.monotonic() - started:6.1f} s] {text}", err=True)

    try:
        disk_size = parse_size(disk)
    except ValueError as error:
        raise UsageError(f"--disk: {error}") from error
    keyset, project = find_project(app.home().keysets, project_name)
    environ = app.environment()
    request = Request(
        name, Place.parse(url, plain_http=plain_http), keyset, project,
        serial=serial, disk=disk_size, memory=memory, cpus=cpus, install=not skip_install,
        passphrase=read_passphrase(passphrase_file),
    )  # fmt: skip
    machine = launch_machine(
        request, machine_store(), clock, SystemRandomness(),
        credentials=Credentials(default_auth_paths(environ), environ), say=say,
    )  # fmt: skip
    forwards = [
        {"protocol": port.protocol, "host": port.host.port, "guest": port.guest.port}
        for nic in machine.config.nics
        for port in nic.ports
    ]
    if as_json:
        app.show_json({"name": name, "ports": forwards})
        return
    say(f"machine {name} is ready; machine start {name} starts it")
    for one in forwards:
        click.echo(f"127.0.0.1:{one['host']} -> {one['guest']}/{one['protocol']}")
