"""``mosctl install``: what the install medium runs. Prints progress on the console."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from machineos.cli import options
from machineos.errors import UsageError

if TYPE_CHECKING:
    from machineos.oci.model.repository import Registry

RUN = Path("/run/machineos")
MEDIUM = RUN / "medium"


@click.command("install")
@click.argument("source", default="")
@click.option("--from-medium", is_flag=True, help="Install what the medium says, or holds.")
@click.option("--disk", default="", help="The disk, if there are several: vda, nvme0n1 ...")
@options.plain_http
def install(*, source: str, from_medium: bool, disk: str, plain_http: bool) -> None:
    """Install this machine from SOURCE, [docker://]host[:port]/path:tag.

    Everything is fetched and verified before the disk is touched. All data on the disk is lost.

    \b
    Examples:
      mosctl install --from-medium
      mosctl install registry.example:5000/machine/install:1.0.0 --disk vda
    """
    from machineos.core.clock import SystemClock
    from machineos.host.disk import blockdev
    from machineos.host.kernel import keyring
    from machineos.install import apply, plan, stage
    from machineos.install import source as sources
    from machineos.oci.layout.folder import LayoutRepository
    from machineos.trust.verify.chain import verify_sudi

    clock = SystemClock()

    def say(text: str) -> None:
        click.echo(f"machineos install: {text}")

    if from_medium == bool(source):
        raise UsageError("say either SOURCE or --from-medium")
    if from_medium:
        request = sources.from_medium(MEDIUM, RUN / "install-data")
    else:
        request = sources.parse_source(source, plain_http=plain_http)
    chosen = plan.choose_disk(blockdev.disks(), disk or request.disk)
    say(f"installing {request.shown} on disk {chosen.name}")
    identity = verify_sudi(
        (RUN / "trust/device.pem").read_bytes(),
        ca_pem=(RUN / "trust/sudi-ca.pem").read_bytes(),
        at=None,
    )
    key = keyring.read_secret("machineos:configuration-key")
    registry: Registry = sources.open_registry(request, clock)
    folder, room = sources.staging_area(RUN / "stage")
    content = LayoutRepository(folder / "mos", writable=True)
    staged = stage.stage(
        registry, request.name, request.tag, content,
        ca_pem=(RUN / "trust/manifest-ca.pem").read_bytes(),
        at=clock.now(), product=identity.product, room=room, say=say,
    )  # fmt: skip
    job = apply.Job(
        chosen, plan.partition_plan(chosen.size, staged.size), staged, content, key, RUN / "work"
    )
    apply.apply(job, clock, say)
    keyring.revoke_secret("machineos:configuration-key")
    say(f"installed successfully: {request.shown}")
