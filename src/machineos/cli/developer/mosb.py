"""``mosb``: the builder. Images, hostfs, bootkit, media, and the manifest that names them."""

from __future__ import annotations

from typing import NoReturn

from machineos.cli import app
from machineos.cli.developer.mosb_image import image
from machineos.cli.developer.mosb_manifest import manifest
from machineos.cli.developer.mosb_os import bootkit, hostfs, media
from machineos.cli.group import group


@group("mosb", "Build the images of an appliance, sign them, and publish the manifest.")
def mosb() -> None:
    """Hold the commands."""


for _command in (image, hostfs, bootkit, media, manifest):
    mosb.add_command(_command)


def main() -> NoReturn:
    """Run mosb: the console script."""
    app.main(mosb)
