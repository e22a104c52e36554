"""``mosb hostfs``, ``bootkit`` and ``media``: the parts of an appliance that are not services."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from machineos.cli import app

if TYPE_CHECKING:
    from collections.abc import Callable

    from machineos.build.os.appliance import Workshop
    from machineos.core.secret import Secret
    from machineos.oci.model.documents import Descriptor


def _common(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        app.json_option,
        click.option(
            "--cache", type=click.Path(file_okay=False, path_type=Path),
            help="Folder for what is kept between builds.",
        ),
        click.option("--version", "version", default="", help="Version of the image."),
        click.option(
            "--passphrase-file", type=click.Path(dir_okay=False, path_type=Path),
            help="File with the passphrase of the keyset.",
        ),
        click.option("--keyset", "keyset_name", required=True, help="The keyset to build for."),
    ):  # fmt: skip
        function = option(function)
    return function


@click.group("hostfs")
def hostfs() -> None:
    """The read-only root file system of the appliance."""


@hostfs.command("build")
@_common
def hostfs_build(*, keyset_name: str, as_json: bool, **options: Any) -> None:  # noqa: ANN401
    """Build the root from Debian's packages (needs root).

    \b
    Example:
      mosb hostfs build --keyset snakeoil
    """
    from machineos.build.os import appliance
    from machineos.trust.keys.keyset import Keyset

    keyset = Keyset.open(app.home().keysets, keyset_name)
    shop = _workshop(options)
    descriptor = appliance.build_hostfs(keyset.root, shop)
    _show(appliance.hostfs_layout(keyset.root, shop.variant), "hostfs", descriptor, as_json)


@click.group("bootkit")
def bootkit() -> None:
    """shim and the kernel images of a keyset, signed."""


@bootkit.command("build")
@click.option("--policy-version", default="0001", help="Four digits; raised to lock out old ones.")
@_common
def bootkit_build(
    *,
    keyset_name: str,
    policy_version: str,
    as_json: bool,
    **options: Any,  # noqa: ANN401
) -> None:
    """Build shim, kernel images with their TPM policies, and the bootkit image (needs root).

    \b
    Example:
      mosb bootkit build --keyset snakeoil
    """
    from machineos.build.os import appliance
    from machineos.build.os.bootkit import Anchored
    from machineos.trust.keys.keyset import Keyset

    keyset = Keyset.open(app.home().keysets, keyset_name)
    shop = _workshop(options, policy_version=policy_version)
    descriptor = appliance.build_bootkit(
        Anchored(keyset, read_passphrase(options["passphrase_file"])), shop
    )
    folder = appliance.bootkit_folder(keyset.root, shop.variant)
    _show(folder / "oci", appliance.BOOTKIT_TAG, descriptor, as_json)


@click.group("media")
def media() -> None:
    """Images that firmware boots: provisioning and installation."""


@media.command("build")
@click.option("--project", "project_name", required=True, help="keyset:project")
@click.option(
    "--with", "manifest", default="", metavar="oci:DIR:PATH:TAG",
    help="Put this published manifest and its images on the install medium.",
)  # fmt: skip
@click.option(
    "--passphrase-file", type=click.Path(dir_okay=False, path_type=Path),
    help="File with the passphrase of the keyset.",
)  # fmt: skip
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), help="Folder.")
@app.json_option
def media_build(
    *,
    project_name: str,
    manifest: str,
    passphrase_file: Path | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Build provision.iso and install.iso into the keyset's artifacts folder.

    \b
    Examples:
      mosb media build --project snakeoil:default
      mosb media build --project snakeoil:default --with oci:registry:machine/install:1.0.0
    """
    from machineos.build.media import installmedia
    from machineos.core.clock import SystemClock
    from machineos.trust.keys.keyset import find_project

    keyset, project = find_project(app.home().keysets, project_name)
    made = installmedia.build_media(
        keyset,
        project,
        output=output or keyset.artifacts,
        passphrase=read_passphrase(passphrase_file),
        manifest=manifest,
        clock=SystemClock(),
        say=lambda text: click.echo(text, err=True),
    )
    if as_json:
        app.show_json({name: str(path) for name, path in made.items()})
        return
    for path in made.values():
        click.echo(str(path))


def read_passphrase(path: Path | None) -> Secret | None:
    """Return the passphrase in a file, None without one."""
    if path is None:
        return None
    from machineos.core.secretfile import read_secret_file

    return read_secret_file(path)


def _workshop(options: dict[str, Any], *, policy_version: str = "0001") -> Workshop:
    from machineos import __version__
    from machineos.build.os.appliance import Workshop

    cache = options["cache"] or app.home().cache / "machineos"
    cache.mkdir(parents=True, exist_ok=True)
    return Workshop(
        cache=cache,
        version=options["version"] or __version__,
        policy_version=policy_version,
        say=lambda text: click.echo(text, err=True),
    )


def _show(layout: Path, tag: str, descriptor: Descriptor, as_json: bool) -> None:
    if as_json:
        app.show_json({"layout": str(layout), "tag": tag, "digest": str(descriptor.digest)})
        return
    click.echo(f"oci:{layout}:{tag}  {descriptor.digest}")
