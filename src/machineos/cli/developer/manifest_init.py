"""``mosb manifest init``: a first manifest.yaml from images.

Only opens what is named and prints; what is written is decided in ``build.publish.draft``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from machineos.cli import app, options
from machineos.cli.developer import progress
from machineos.cli.developer.opener import Opener
from machineos.errors import ConflictError, UsageError

if TYPE_CHECKING:
    from machineos.build.publish.draft import Draft, Found, Service

_BUILT = Path("oci")  # where ``mosb image build`` puts what it builds


@click.command("init")
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@click.option("--product", help="Name of the product (default: that of this folder).")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default="manifest.yaml",
    show_default=True,
    help="The file to write; - is standard output.",
)
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@options.registries
@options.as_json
def init(
    images: tuple[str, ...],
    product: str | None,
    output: Path,
    force: bool,
    reach: options.Reach,
    as_json: bool,
) -> None:
    """Write a first manifest.yaml: a target for each IMAGE, with what the image asks for.

    IMAGE is docker://host/name:tag, oci:DIR:TAG, or another source that a manifest may have;
    without one, all that `mosb image build` left in the folder oci. Ports, volumes, user and
    command come from the image's configuration; comments marked with ? say what is yours to decide.

    \b
    Examples:
      mosb manifest init docker://registry.example/library/web:1.2
      mosb manifest init --output - oci:oci:web oci:oci:database
    """
    from machineos.build.publish.draft import draft
    from machineos.core.files import write_atomic

    shown = str(output) == "-"
    if not shown and not force and os.path.lexists(output):
        raise ConflictError(f"{output} exists already", hint="--force replaces it")
    if shown and as_json:
        raise UsageError("--output - prints the manifest, --json prints JSON: give one of them")
    with progress.shown(plain=as_json) as watch, Opener(reach, watch.say) as opener:
        found = [_look(opener, text, watch) for text in images or _built()]
    made = draft(product or _folder_name(), found)
    if not shown:
        write_atomic(output, made.text.encode())
    if as_json:
        app.show_json(_json(made, output))
    else:
        _show(made, output, shown=shown)


def _show(made: Draft, output: Path, *, shown: bool) -> None:
    if shown:
        click.echo(made.text, nl=False)
    for note in made.notes:
        app.say(note)
    if not shown:
        app.show(f"{output}: {len(made.services)} targets; look at what is marked with ?")


def _look(opener: Opener, text: str, watch: progress.Watch) -> Found:
    from machineos.build.publish.draft import Found
    from machineos.build.recipe.config import parse_config
    from machineos.build.recipe.convert import read_image
    from machineos.document.model.image import MACHINE
    from machineos.document.model.limits import MAX_CONFIG
    from machineos.document.product.image import check_image_config
    from machineos.oci.model.reference import ImageSource

    source = ImageSource.parse(text)
    watch.say(f"look at {text}")
    repository, reference = opener.image(text)
    manifest, _ = read_image(repository, reference, MACHINE)
    name = f"configuration of {text}"
    data = repository.blob(manifest.config, limit=MAX_CONFIG)
    check_image_config(data, name=name)
    config, _ = parse_config(data, name=name)
    return Found(text, source, config)


def _built() -> tuple[str, ...]:
    from machineos.oci.layout.folder import LayoutRepository

    tags = LayoutRepository(_BUILT).tags()
    if not tags:
        raise UsageError(
            "name an IMAGE: there is no folder oci with images that were built",
            hint="mosb manifest init docker://registry.example/library/web:1.2",
        )
    return tuple(f"oci:{_BUILT}:{tag}" for tag in tags)


def _folder_name() -> str:
    from machineos.document.model.names import ProductName

    name = Path.cwd().name
    return "product" if ProductName.problem(name) else name


def _json(made: Draft, output: Path) -> dict[str, object]:
    def target(service: Service) -> dict[str, object]:
        return {
            "service_name": service.name,
            "source": service.source,
            "version": service.version,
            "service_type": service.kind,
            "ports": [
                {"host": port.host, "container": port.container, "protocol": port.protocol}
                for port in service.ports
            ],
            "storage": [{"label": volume.label, "dest": volume.dest} for volume in service.volumes],
        }

    targets = [target(service) for service in made.services]
    return {"file": str(output), "targets": targets, "notes": made.notes}
