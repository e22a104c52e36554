"""``mosb image``: build images from recipes, convert images of any origin.

Arguments in, text or JSON out; every decision is in ``machineos.image``, imported inside the
commands so that ``--help`` is quick.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from machineos.cli import app
from machineos.errors import UsageError

if TYPE_CHECKING:
    from machineos.oci.model.atomfs import FilesystemKind
    from machineos.oci.model.documents import Descriptor
    from machineos.oci.model.repository import Repository

_FOLDER = click.Path(file_okay=False, path_type=Path)
_LAYER_TYPE = click.option(
    "--layer-type",
    type=click.Choice(["squashfs", "erofs"]),
    default="squashfs",
    show_default=True,
    help="File system of the layer; dm-verity data is always appended.",
)
_EPOCH = click.option(
    "--epoch",
    type=click.IntRange(0, (1 << 32) - 1),
    envvar="SOURCE_DATE_EPOCH",
    show_envvar=True,
    help="Latest time in the image, in seconds since 1970 (the default is the start of 2026).",
)
_CACHE = click.option("--cache", type=_FOLDER, help="Folder for what is kept between builds.")
_PLAIN = click.option("--plain-http", is_flag=True, help="Speak HTTP without TLS to registries.")


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
@_CACHE
@_PLAIN
@app.json_option
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
    from machineos.build.recipe.build import DEFAULT_EPOCH, Settings
    from machineos.build.recipe.build import build as build_recipe
    from machineos.build.recipe.recipe import load_recipe
    from machineos.oci.layout.folder import LayoutRepository

    recipe = load_recipe(recipe_path, substitutions=_pairs(substitute))
    with contextlib.ExitStack() as stack:
        settings = Settings(
            base=recipe_path.resolve().parent,
            cache=cache or app.home().cache / "machineos" / "image",
            epoch=DEFAULT_EPOCH if epoch is None else epoch,
            kind=layer_type,
            allow_unpinned=allow_unpinned,
            open_image=lambda text: _open(text, stack, plain_http=plain_http),
            progress=lambda line: click.echo(line, err=True),
        )
        sink = LayoutRepository(_layout(layout), writable=True)
        built = build_recipe(recipe, sink, settings, stages=stages or None)
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
@_CACHE
@_PLAIN
@app.json_option
def convert(
    source: str,
    layout: str,
    tag: str,
    platform: str,
    setuid: str,
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
    from machineos.build.recipe.archive import Policy
    from machineos.build.recipe.build import DEFAULT_EPOCH
    from machineos.build.recipe.convert import convert_image
    from machineos.oci.layout.folder import LayoutRepository

    system, slash, machine = platform.partition("/")
    if not slash:
        raise UsageError(f"--platform {platform} is not os/architecture")
    work = (cache or app.home().cache / "machineos" / "image") / "convert"
    work.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        repository, reference = _open(source, stack, plain_http=plain_http)
        descriptor = convert_image(
            repository,
            reference,
            LayoutRepository(_layout(layout), writable=True),
            work=work,
            epoch=DEFAULT_EPOCH if epoch is None else epoch,
            platform=(system, machine),
            kind=layer_type,
            policy=Policy(setuid=_setuid(setuid)),
            progress=lambda line: click.echo(line, err=True),
            tag=tag,
        )
    _show({tag: descriptor}, layout, as_json=as_json)


def _show(built: dict[str, Descriptor], layout: str, *, as_json: bool) -> None:
    if as_json:
        app.show_json(
            [
                {"tag": tag, "layout": layout, **descriptor.to_json()}
                for tag, descriptor in built.items()
            ]
        )
        return
    for tag, descriptor in built.items():
        click.echo(f"{layout}:{tag} {descriptor.digest}")


def _setuid(text: str) -> Literal["keep", "strip", "refuse"]:
    return "keep" if text == "keep" else "refuse" if text == "refuse" else "strip"


def _pairs(texts: tuple[str, ...]) -> dict[str, str]:
    result: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"--substitute {text}: is not NAME=VALUE")
        if name in result:
            raise UsageError(f"--substitute {name}: is given twice")
        result[name] = value
    return result


def _layout(text: str) -> Path:
    folder = text.removeprefix("oci:")
    if not text.startswith("oci:") or not folder:
        raise UsageError(f"--layout {text}: is not oci:DIR")
    return Path(folder)


def _open(text: str, stack: contextlib.ExitStack, *, plain_http: bool) -> tuple[Repository, str]:
    """Return repository and selector of an image; connections live as long as ``stack``."""
    from machineos.oci.layout.folder import LayoutRepository
    from machineos.oci.model.reference import ImageSource
    from machineos.oci.registry.auth import Credentials
    from machineos.oci.registry.client import HttpRegistry

    source = ImageSource.parse(text)
    if source.reference is None:
        return LayoutRepository(source.folder or Path()), source.selector
    home = app.home()
    files = (
        home.runtime / "containers" / "auth.json",
        home.config / "containers" / "auth.json",
        home.user / ".docker" / "config.json",
    )
    registry = stack.enter_context(
        HttpRegistry(
            source.reference.host,
            plain_http=plain_http,
            credentials=Credentials(files, {"HOME": str(home.user)}),
        )
    )
    return registry.repository(source.reference.name), source.selector
