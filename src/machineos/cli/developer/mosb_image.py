"""``mosb image``: build images from recipes, convert images of any origin.

Arguments in, text or JSON out; every decision is in ``machineos.build.recipe``, imported inside the
commands so that ``--help`` is quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from machineos.cli import app, options
from machineos.cli.developer import image_shape, inspecting, progress
from machineos.cli.developer.opener import Opener
from machineos.core.clock import SystemClock

if TYPE_CHECKING:
    from machineos.oci.model.atomfs import FilesystemKind
    from machineos.oci.model.documents import Descriptor

_LAYER_TYPE = click.option(
    "--layer-type",
    type=click.Choice(["squashfs", "erofs"]),
    default="squashfs",
    show_default=True,
    help="File system of the layer; dm-verity data is always appended.",
)
_EPOCH = options.epoch("the start of 2026")


@click.group("image")
def image() -> None:
    """Build images from recipes; convert images of any origin.

    An image has one layer: squashfs or EROFS with dm-verity data, which the kernel of the
    appliance checks block by block. The same input gives the same digest.
    """


@image.command("build")
@click.option(
    "-f",
    "--file",
    "recipe_path",
    type=click.Path(dir_okay=False, path_type=Path),
    default="stacker.yaml",
    show_default=True,
    help="The recipe, in stacker's format.",
)
@click.option(
    "--layout",
    default="oci:oci",
    show_default=True,
    metavar="oci:DIR",
    help="The OCI layout that the images go to; each gets its stage's name as tag.",
)
@click.option("--stage", "stages", multiple=True, metavar="NAME", help="Build only this stage.")
@click.option(
    "--substitute",
    multiple=True,
    metavar="NAME=VALUE",
    help="A value for ${{NAME}} in the recipe.",
)
@click.option(
    "--allow-unpinned",
    is_flag=True,
    help="Use https:// imports that have no checksum in the recipe.",
)
@_LAYER_TYPE
@_EPOCH
@options.cache
@options.plain_http
@options.as_json
def build(
    recipe_path: Path,
    layout: str,
    stages: tuple[str, ...],
    substitute: tuple[str, ...],
    allow_unpinned: bool,
    layer_type: FilesystemKind,
    epoch: int | None,
    cache: Path | None,
    plain_http: bool,
    as_json: bool,
) -> None:
    """Build the stages of a recipe into an OCI layout. Needs root.

    Stages that have not changed are taken from the cache.

    \b
    Examples:
      mosb image build
      mosb image build -f demo/stacker.yaml --layout oci:out --substitute VERSION=1.0
      mosb image build --stage web --layer-type erofs --json
    """
    from machineos.build.recipe.build import Settings, load_recipe
    from machineos.build.recipe.build import build as build_recipe
    from machineos.build.recipe.stageplan import DEFAULT_EPOCH
    from machineos.oci.layout.folder import LayoutRepository

    recipe = load_recipe(recipe_path, substitutions=image_shape.substitutions(substitute))
    with progress.shown(plain=as_json) as watch, Opener(plain_http, watch.say) as opener:
        settings = Settings(
            base=recipe_path.resolve().parent,
            cache=(cache or app.home().cache / "machineos" / "image").absolute(),
            clock=SystemClock(),
            epoch=DEFAULT_EPOCH if epoch is None else epoch,
            kind=layer_type,
            allow_unpinned=allow_unpinned,
            open_image=opener.image,
            progress=watch.say,
        )
        sink = LayoutRepository(image_shape.layout_folder(layout), writable=True)
        built = build_recipe(recipe, sink, settings, stages=stages or None)
        inspecting.note_packed(sink, built)
    _show(built, layout, as_json=as_json)


@image.command("convert")
@click.argument("source")
@click.option(
    "--layout", default="oci:oci", show_default=True, metavar="oci:DIR", help="Where it goes."
)
@click.option("--tag", required=True, help="The tag in the layout.")
@click.option(
    "--platform",
    default="linux/amd64",
    show_default=True,
    help="Which image of an index to take.",
)
@click.option(
    "--setuid",
    type=click.Choice(["strip", "keep", "refuse"]),
    default="strip",
    show_default=True,
    help="What to do with set-user-id and set-group-id programs.",
)
@_LAYER_TYPE
@_EPOCH
@options.cache
@options.plain_http
@options.as_json
def convert(
    source: str,
    layout: str,
    tag: str,
    platform: str,
    setuid: Literal["strip", "keep", "refuse"],
    layer_type: FilesystemKind,
    epoch: int | None,
    cache: Path | None,
    plain_http: bool,
    as_json: bool,
) -> None:
    """Convert an image to one verity layer.

    SOURCE is docker://host/name:tag or oci:DIR:TAG. Every member of its archives is vetted first.
    Tar layers become squashfs as any user; --layer-type erofs, layers that are file systems, times
    in the future, and a root folder that is not 0:0 or has attributes need root.

    \b
    Example:
      mosb image convert docker://registry.example/library/web:1.2 --layout oci:out --tag web
    """
    from machineos.build.recipe.conversion import Conversion
    from machineos.build.recipe.convert import convert_image
    from machineos.build.recipe.member import Policy
    from machineos.build.recipe.stageplan import DEFAULT_EPOCH
    from machineos.oci.layout.folder import LayoutRepository

    wanted = image_shape.platform_pair(platform)
    work = (cache or app.home().cache / "machineos" / "image").absolute() / "convert"
    work.mkdir(parents=True, exist_ok=True)
    with progress.shown(plain=as_json) as watch, Opener(plain_http, watch.say) as opener:
        repository, reference = opener.image(source)
        conversion = Conversion(
            work=work,
            clock=SystemClock(),
            epoch=DEFAULT_EPOCH if epoch is None else epoch,
            platform=wanted,
            kind=layer_type,
            policy=Policy(setuid=setuid),
            progress=watch.say,
        )
        sink = LayoutRepository(image_shape.layout_folder(layout), writable=True)
        descriptor = convert_image(repository, reference, sink, conversion, tag=tag)
        inspecting.note_packed(sink, {tag: descriptor}, vetted=True)
    _show({tag: descriptor}, layout, as_json=as_json)


def _show(built: dict[str, Descriptor], layout: str, *, as_json: bool) -> None:
    if as_json:
        app.show_json(image_shape.images_json(built, layout))
        return
    for line in image_shape.image_lines(built, layout):
        app.show(line)
