"""``mosb image``: build images from recipes, convert images of any origin.

Arguments in, text or JSON out; every decision is in ``machineos.build.recipe``, imported inside the
commands so that ``--help`` is quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from machineos.cli import app, options
from machineos.cli.developer import image_shape, inspecting, places, progress
from machineos.cli.developer.opener import Opener, access
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
_SUBSTITUTE = click.option(
    "--substitute",
    multiple=True,
    metavar="NAME=VALUE",
    help="A value for ${{NAME}} in the recipe.",
)
_SUBSTITUTE_FILE = click.option(
    "--substitute-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="More values, in a YAML mapping; --substitute goes before it.",
)
_ALLOW_FOLDER = click.option(
    "--allow-folder",
    "allowed",
    multiple=True,
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder besides the recipe's own that the recipe may read; may be given again.",
)


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
@_SUBSTITUTE
@_SUBSTITUTE_FILE
@_ALLOW_FOLDER
@click.option(
    "--allow-unpinned",
    is_flag=True,
    help="Use https:// imports that have no checksum in the recipe.",
)
@click.option(
    "--allow-engines",
    is_flag=True,
    help="Let the recipe start from images that Docker or podman of this machine hold.",
)
@_LAYER_TYPE
@_EPOCH
@options.cache
@options.registries
@options.as_json
def build(
    recipe_path: Path,
    layout: str,
    stages: tuple[str, ...],
    substitute: tuple[str, ...],
    substitute_file: Path | None,
    allowed: tuple[Path, ...],
    allow_unpinned: bool,
    allow_engines: bool,
    layer_type: FilesystemKind,
    epoch: int | None,
    cache: Path | None,
    reach: options.Reach,
    as_json: bool,
) -> None:
    """Build the stages of a recipe into an OCI layout.

    As root, or as a user with subordinate ids (/etc/subuid, /etc/subgid). Scripts run in a
    container that sees nothing of this machine but what the recipe imports, and a recipe reads no
    file that is not below its own folder, unless --allow-folder names another, and no image that
    Docker or podman hold for you without --allow-engines. Stages that have not changed are taken
    from the cache. Of the recipes under config.prerequisites, the stages are built that are needed.

    \b
    Examples:
      mosb image build
      mosb image build -f demo/stacker.yaml --layout oci:out --substitute VERSION=1.0
      mosb image build -f layers/web/stacker.yaml --allow-folder . --substitute-file values.yaml
      mosb image build --stage web --layer-type erofs --json
    """
    from machineos.build.recipe.build import Settings
    from machineos.build.recipe.build import build as build_recipe
    from machineos.build.recipe.load import load_recipe
    from machineos.build.recipe.stageplan import DEFAULT_EPOCH
    from machineos.host.pack.caller import enter
    from machineos.oci.layout.folder import LayoutRepository

    sink_folder = image_shape.layout_folder(layout)
    values = _values(substitute, substitute_file, sink_folder)
    recipe = load_recipe(recipe_path, substitutions=values, allowed=allowed)
    work = cache or app.home().cache / "machineos" / "image"
    enter("building images")  # before there are threads
    with progress.shown(plain=as_json) as watch, Opener(reach, watch.say) as opener:
        settings = Settings(
            base=recipe_path.resolve().parent,
            cache=work,
            clock=SystemClock(),
            epoch=DEFAULT_EPOCH if epoch is None else epoch,
            kind=layer_type,
            allow_unpinned=allow_unpinned,
            allow_engines=allow_engines,
            open_image=opener.image,
            access=access(reach),
            progress=watch.say,
            allowed=(*allowed, sink_folder),  # which ${{STACKER_OCI_DIR}} is
        )
        sink = LayoutRepository(sink_folder, writable=True)
        built = build_recipe(recipe, sink, settings, stages=stages or None)
        inspecting.note_packed(sink, built)
    _show(built, layout, as_json=as_json)


@image.command("check")
@click.argument(
    "recipes",
    nargs=-1,
    required=True,
    metavar="RECIPE...",
    type=click.Path(dir_okay=False, path_type=Path),
)
@click.option(
    "--layout",
    default="oci:oci",
    show_default=True,
    metavar="oci:DIR",
    help="The OCI layout that a build would write, for ${{STACKER_OCI_DIR}}.",
)
@_SUBSTITUTE
@_SUBSTITUTE_FILE
@_ALLOW_FOLDER
@options.as_json
def check(
    recipes: tuple[Path, ...],
    layout: str,
    substitute: tuple[str, ...],
    substitute_file: Path | None,
    allowed: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Read recipes, and show what would be built of them, in that order, and from what.

    Nothing is built, fetched or written, and no image or import is looked for. A recipe with
    faults ends in exit code 3, after the others were shown.

    \b
    Examples:
      mosb image check stacker.yaml
      mosb image check layers/*/stacker.yaml --allow-folder . --substitute VERSION=1.0 --json
    """
    from machineos.build.recipe.load import load_recipe
    from machineos.errors import DocumentError

    values = _values(substitute, substitute_file, image_shape.layout_folder(layout))
    good = []
    refused = []
    for path in recipes:
        try:
            good.append(load_recipe(path, substitutions=values, allowed=allowed))
        except DocumentError as error:
            refused.append(error)
    if as_json:
        app.show_json(image_shape.recipes_json(good))
    elif good:
        app.show_table(image_shape.RECIPE_COLUMNS, image_shape.recipe_rows(good))
    if refused:
        raise image_shape.refused_recipes(refused, len(recipes))


@image.command("convert")
@click.argument("source", shell_complete=places.images)
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
@options.registries
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
    reach: options.Reach,
    as_json: bool,
) -> None:
    """Convert an image to one verity layer.

    SOURCE is docker://host/name:tag, oci:DIR:TAG, an archive (oci-archive:FILE[:NAME],
    docker-archive:FILE[:NAME]), or what Docker or podman of this machine hold
    (docker-daemon:NAME:TAG, containers-storage:NAME). Every member of its archives is vetted first.
    Layers become squashfs as any user; --layer-type erofs and layers that are EROFS need
    subordinate ids (/etc/subuid, /etc/subgid) or root; times in the future, and a root folder that
    is not 0:0 or has attributes need root.

    \b
    Examples:
      mosb image convert docker://registry.example/library/web:1.2 --layout oci:out --tag web
      mosb image convert docker-archive:web.tar --layout oci:out --tag web
    """
    from machineos.build.recipe.conversion import Conversion
    from machineos.build.recipe.convert import convert_image
    from machineos.build.recipe.member import Policy
    from machineos.build.recipe.stageplan import DEFAULT_EPOCH
    from machineos.host.pack.caller import enter
    from machineos.oci.layout.folder import LayoutRepository

    wanted = image_shape.platform_pair(platform)
    work = (cache or app.home().cache / "machineos" / "image") / "convert"
    work.mkdir(parents=True, exist_ok=True)
    if layer_type == "erofs":
        enter("packing erofs")  # before there are threads
    with progress.shown(plain=as_json) as watch, Opener(reach, watch.say) as opener:
        repository, reference = opener.image(source)
        conversion = Conversion(
            work=work,
            clock=SystemClock(),
            epoch=DEFAULT_EPOCH if epoch is None else epoch,
            platform=wanted,
            kind=layer_type,
            policy=Policy(setuid=setuid),
            packed=inspecting.inspector(watch.say).packed,
            progress=watch.say,
        )
        sink = LayoutRepository(image_shape.layout_folder(layout), writable=True)
        descriptor = convert_image(repository, reference, sink, conversion, tag=tag)
        inspecting.note_packed(sink, {tag: descriptor}, vetted=True)
    _show({tag: descriptor}, layout, as_json=as_json)


def _values(substitute: tuple[str, ...], file: Path | None, layout: Path) -> dict[str, str]:
    """Return the values for a recipe. Raises: UsageError, DocumentError, MissingError."""
    from machineos.build.recipe.substitution import MAX_RECIPE, parse_values
    from machineos.core.files import read_named

    given = image_shape.substitutions(substitute)
    read = parse_values(read_named(file, MAX_RECIPE), name=str(file)) if file else {}
    return {"STACKER_OCI_DIR": str(layout.absolute()), **read, **given}


def _show(built: dict[str, Descriptor], layout: str, *, as_json: bool) -> None:
    if as_json:
        app.show_json(image_shape.images_json(built, layout))
        return
    for line in image_shape.image_lines(built, layout):
        app.show(line)
