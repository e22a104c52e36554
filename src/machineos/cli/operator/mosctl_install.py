"""``mosctl install``: what the install medium runs. Prints progress on the console."""

from __future__ import annotations

import click

from machineos.cli import app, options


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
    from machineos.install.main import main, wish_of

    wish = wish_of(source, from_medium=from_medium, disk=disk, plain_http=plain_http)
    main(wish, lambda text: app.show(f"machineos install: {text}"))
