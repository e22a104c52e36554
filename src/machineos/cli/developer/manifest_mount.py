"""``mosb manifest mount`` and ``unmount``: the files of a published target, to look at.

Only parses arguments and prints; the decisions are in ``build.publish.showing``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from machineos.cli import app, options
from machineos.cli.developer import manifest_shape as shape
from machineos.cli.developer import places, progress
from machineos.cli.developer.opener import Opener
from machineos.errors import MissingError

if TYPE_CHECKING:
    from uuid import UUID

    from machineos.build.publish.ways import Way
    from machineos.document.model.install import Install, Target

_HOW: dict[Way, str] = {
    "kernel": "mounted by the kernel",
    "fuse": "mounted by squashfuse",
    "unpacked": "unpacked, without owners, devices and attributes",
}


@click.command("mount")
@click.argument("name", metavar="PATH:TAG", shell_complete=places.manifests)
@click.argument("target", shell_complete=places.targets)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--repo",
    required=True,
    metavar="HOST[:PORT][/OWNER]|oci:DIR",
    help="Registry, or a folder with one OCI layout per name.",
)
@shape.trust
@click.option(
    "--way",
    type=click.Choice(["kernel", "fuse", "unpacked"]),
    help="How to show it (default: the first of these that works here).",
)
@options.registries
@options.as_json
def mount(
    name: str,
    target: str,
    folder: Path,
    repo: str,
    project: str | None,
    ca: Path | None,
    product: UUID | None,
    way: Way | None,
    reach: options.Reach,
    as_json: bool,
) -> None:
    """Show the files of TARGET, a service of a published manifest, at the folder DIR.

    The manifest's signature is verified as by `mosb manifest verify`, then every block of the image
    against the root hash that its publisher signed; what was verified is what is shown, read-only.
    Root gets a mount of the kernel, who has squashfuse one of that, everybody else the files
    unpacked. `mosb manifest unmount DIR` ends it.

    \b
    Example:
      mosb manifest mount --project snakeoil:default --repo oci:registry \\
          machine/install:1.0.0 web /mnt
    """
    from machineos.build.publish.showing import show
    from machineos.document.verify.images import REPOSITORY, verify_image

    believed = shape.believed(project, ca, product, needed=True)
    cache = _cache()
    with progress.shown(plain=as_json) as watch, Opener(reach, watch.say) as opener:
        registry = opener.registry(repo)
        watch.say(f"verify {registry.name}/{name}")
        verified = shape.fetch(registry, name, believed).verified
        wanted = _target(verified.install, target, name)
        store = registry.repository(REPOSITORY)
        image = verify_image(store, wanted, verified.publisher)
        used = show(store, image, folder, cache=cache, wanted=way, say=watch.say)
    if as_json:
        app.show_json(
            {
                "target": wanted.service_name,
                "version": wanted.version,
                "digest": wanted.digest,
                "folder": str(folder.absolute()),
                "way": used,
                "verified": True,
            }
        )
        return
    app.show(f"{folder} shows {wanted.service_name} {wanted.version}, read-only: {_HOW[used]}")
    app.show(f"  digest   {wanted.digest}, every block checked before")
    app.show(f"  mosb manifest unmount {folder} ends it")


@click.command("unmount")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@options.as_json
def unmount(folder: Path, as_json: bool) -> None:
    """End what `mosb manifest mount` shows at DIR; the folder stays, empty.

    \b
    Example:
      mosb manifest unmount /mnt
    """
    from machineos.build.publish.showing import hide

    shown = hide(folder, cache=_cache())
    if as_json:
        app.show_json({"folder": shown.path, "way": shown.way})
        return
    app.show(f"{folder} is empty again")


def _target(install: Install, name: str, where: str) -> Target:
    for target in install.targets:
        if target.service_name == name:
            return target
    there = ", ".join(target.service_name for target in install.targets)
    raise MissingError(f"{where} names no target {name[:80]!r}", hint=f"it has: {there:.500}")


def _cache() -> Path:
    return app.home().cache / "machineos"
