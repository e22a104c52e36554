"""``mosb hostfs``, ``bootkit`` and ``media``: the parts of an appliance that are not services."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from machineos.cli import app, options
from machineos.cli.developer import inspecting, keysets, progress
from machineos.cli.developer.opener import access

if TYPE_CHECKING:
    from collections.abc import Callable

    from machineos.build.os.workshop import Workshop
    from machineos.document.between.bootsettings import TpmKind
    from machineos.document.model.hardware import Hardware, Kernel, Microcode, PackageName
    from machineos.oci.model.documents import Descriptor


def _common(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        options.as_json,
        options.cache,
        click.option("--version", "version", default="", help="Version of the image."),
        options.passphrase_file,
        keysets.keyset,
    ):
        function = option(function)
    return function


def _packages(
    _context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]
) -> tuple[PackageName, ...]:
    from machineos.document.model.hardware import PackageName

    try:
        return tuple(PackageName.parse(text) for text in given)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.group("hostfs")
def hostfs() -> None:
    """The read-only root file system of the appliance."""


@hostfs.command("build")
@_common
def hostfs_build(*, keyset_name: str, as_json: bool, **given: Any) -> None:  # noqa: ANN401
    """Build the root from Debian's packages.

    As root, or as a user with subordinate ids (/etc/subuid, /etc/subgid).

    \b
    Example:
      mosb hostfs build --keyset snakeoil
    """
    from machineos.build.os import appliance, workshop
    from machineos.oci.layout.folder import LayoutRepository

    keyset = keysets.open_keyset(keyset_name)
    cache = _cache(given, "building the root")
    with progress.shown(plain=as_json) as watch:
        shop = _workshop(given, watch, cache)
        descriptor = appliance.build_hostfs(keyset.root, shop)
    layout = workshop.hostfs_layout(keyset.root, shop.variant)
    inspecting.note_packed(LayoutRepository(layout), {"hostfs": descriptor})
    _show(layout, "hostfs", descriptor, as_json)


@click.group("bootkit")
def bootkit() -> None:
    """shim and the kernel images of a keyset, signed."""


@bootkit.command("build")
@click.option("--policy-version", default="0001", help="Four digits; raised to lock out old ones.")
@click.option(
    "--require-tpm-kind", "tpm_kind", default="", metavar="KIND",
    type=click.Choice(["", "integrated", "discrete", "virtual"]),
    help="Provision no machine with a TPM of another kind: integrated, discrete or virtual.",
)  # fmt: skip
@click.option(
    "--kernel", type=click.Choice(["generic", "cloud"]),
    help="Debian's kernel for every machine (the default), or the small one for guests.",
)  # fmt: skip
@click.option(
    "--firmware", multiple=True, metavar="PACKAGE", callback=_packages,
    help="A Debian package: its files that a module names go in; may be given again. Or common "
    "(what servers have, about 5 MB), all, none. Without it: common with generic.",
)  # fmt: skip
@click.option(
    "--microcode", type=click.Choice(["amd", "intel", "none"]),
    help="Of processors; intel is both, and doubles a kernel image. Without it: AMD's with "
    "generic.",
)  # fmt: skip
@click.option(
    "--manifest", type=click.Path(path_type=Path), callback=options.input_file, metavar="FILE",
    help="A manifest.yaml whose `hardware` says these three; an option wins.",
)  # fmt: skip
@_common
def bootkit_build(
    *,
    keyset_name: str,
    policy_version: str,
    tpm_kind: TpmKind,
    kernel: Kernel | None,
    firmware: tuple[PackageName, ...],
    microcode: Microcode | None,
    manifest: Path | None,
    as_json: bool,
    **given: Any,  # noqa: ANN401
) -> None:
    """Build shim, kernel images with their TPM policies, and the bootkit image.

    As root, or as a user with subordinate ids (/etc/subuid, /etc/subgid).

    \b
    Examples:
      mosb bootkit build --keyset snakeoil
      mosb bootkit build --keyset snakeoil --firmware firmware-bnx2x --microcode intel
      mosb bootkit build --keyset snakeoil --kernel cloud
    """
    from machineos.build.os import appliance, workshop
    from machineos.build.os.bootkit import Anchored
    from machineos.oci.layout.folder import LayoutRepository

    keyset = keysets.open_keyset(keyset_name)
    anchored = Anchored(keyset, app.read_passphrase(given["passphrase_file"]))
    hardware = _hardware(manifest).changed(kernel, firmware, microcode)
    cache = _cache(given, "building the bootkit")
    with progress.shown(plain=as_json) as watch:
        shop = _workshop(
            given, watch, cache, policy_version=policy_version, tpm_kind=tpm_kind, hardware=hardware
        )  # fmt: skip
        descriptor = appliance.build_bootkit(anchored, shop)
    folder = workshop.bootkit_folder(keyset.root, shop.variant)
    inspecting.note_packed(LayoutRepository(folder / "oci"), {"bootkit": descriptor})
    _show(folder / "oci", workshop.BOOTKIT_TAG, descriptor, as_json)


@click.group("media")
def media() -> None:
    """Images that firmware boots: provisioning and installation."""


@media.command("build")
@keysets.project()
@click.option(
    "--with", "manifest", default="", metavar="oci:DIR:PATH:TAG",
    help="Put this published manifest and its images on the install medium.",
)  # fmt: skip
@options.passphrase_file
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), help="Folder.")
@options.as_json
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

    keyset, project = keysets.open_project(project_name)
    with progress.shown(plain=as_json) as watch:
        made = installmedia.build_media(
            keyset,
            project,
            output=output or keyset.artifacts,
            passphrase=app.read_passphrase(passphrase_file),
            manifest=manifest,
            clock=SystemClock(),
            say=watch.say,
        )
    if as_json:
        app.show_json({name: str(path) for name, path in made.items()})
        return
    for path in made.values():
        click.echo(str(path))


def _hardware(manifest: Path | None) -> Hardware:
    from machineos.build.publish.publish import load_source
    from machineos.document.model.hardware import Hardware

    said = None if manifest is None else load_source(manifest).hardware
    return said or Hardware()


def _cache(given: dict[str, Any], what: str) -> Path:
    """Return the folder for what is built, for a process that may write files of several owners."""
    from machineos.host.pack.caller import enter

    cache: Path = given["cache"] or app.home().cache / "machineos"
    cache.mkdir(parents=True, exist_ok=True)
    enter(what)  # before there are threads
    return cache


def _workshop(
    given: dict[str, Any],
    watch: progress.Watch,
    cache: Path,
    *,
    policy_version: str = "0001",
    tpm_kind: TpmKind = "",
    hardware: Hardware | None = None,
) -> Workshop:
    from machineos import __version__
    from machineos.build.os.workshop import Workshop
    from machineos.core.clock import SystemClock
    from machineos.document.model.hardware import Hardware

    return Workshop(
        cache=cache,
        clock=SystemClock(),
        version=given["version"] or __version__,
        policy_version=policy_version,
        tpm_kind=tpm_kind,
        hardware=hardware or Hardware(),
        proxies=access(options.Reach()).proxies,
        say=watch.say,
    )


def _show(layout: Path, tag: str, descriptor: Descriptor, as_json: bool) -> None:
    if as_json:
        app.show_json({"layout": str(layout), "tag": tag, "digest": str(descriptor.digest)})
        return
    click.echo(f"oci:{layout}:{tag}  {descriptor.digest}")
