"""``mosctl check``: what of this box works, before anything is installed and after."""

from __future__ import annotations

from pathlib import Path

import click

from machineos.cli import app, options


@click.command("check")
@click.option(
    "--sysfs",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/sys"),
    show_default=True,
    help="Where the kernel shows the devices.",
)
@options.as_json
def check(*, sysfs: Path, as_json: bool) -> None:
    """Show what of this box works: TPM, Secure Boot, disks, network cards, watchdog.

    The exit status is 0 whatever is missing; scripts read --json.
    """
    import msgspec

    from machineos.document.between.medium import TPM_KIND_FILE
    from machineos.host.disk.box import lines, look
    from machineos.install.source import RUN

    box = look(sysfs, RUN / TPM_KIND_FILE)
    if as_json:
        app.show_json(msgspec.to_builtins(box))
        return
    for line in lines(box):
        app.show(line)
