"""What the commands of ``mosb manifest`` take: where a manifest is, whom to believe, whose parts.

Options that several of them have, and what these mean. Imports are inside: ``verify`` must answer
in 0.35 s.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from machineos.cli import options
from machineos.cli.developer import keysets, places
from machineos.errors import MissingError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from machineos.build.publish.plan import Defaults
    from machineos.document.verify.published import Fetched
    from machineos.oci.model.reference import ImageSource
    from machineos.oci.model.repository import Registry
    from machineos.trust.keys.keyset import Keyset


@dataclass(frozen=True, slots=True)
class Believed:
    """Whose signature counts, and for which product; None: for any."""

    ca_pem: bytes
    product: UUID | None


def place(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say where a manifest is published."""
    for option in (
        options.registries,
        click.option(
            "--name",
            required=True,
            metavar="PATH:TAG",
            shell_complete=places.manifests,
            help="Name of the manifest.",
        ),
        click.option(
            "--repo",
            required=True,
            metavar="HOST[:PORT][/OWNER]|oci:DIR",
            help="Registry, or a folder with one OCI layout per name.",
        ),
    ):
        function = option(function)
    return function


def trust(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say whom to believe."""
    for option in (
        click.option("--product", type=click.UUID, help="Accept only the publisher of this UUID."),
        click.option(
            "--ca",
            type=click.Path(path_type=Path),
            callback=options.input_file,
            metavar="CA.pem",
            help="The manifest CA, instead of --project.",
        ),
        keysets.project("project", required=False, help_text="Whose CA and product to expect."),
    ):
        function = option(function)
    return function


def split_name(name: str) -> tuple[str, str]:
    """Read ``PATH:TAG``. Raises: UsageError, DocumentError."""
    from machineos.oci.model.reference import check_name, check_tag

    path, colon, tag = name.rpartition(":")
    if not colon or not path:
        raise UsageError(
            f"--name {name[:80]!r} is not PATH:TAG",
            hint="for example: --name machine/install:1.0.0",
        )
    return check_name(path), check_tag(tag)


def keyset_defaults(keyset: Keyset) -> Defaults:
    """Return where a keyset's own hostfs and bootkit are; asking for one that is not built raises
    MissingError."""
    from machineos.build.publish.plan import Defaults
    from machineos.oci.model.reference import ImageSource

    def built(kind: str, tag: str) -> Callable[[], ImageSource]:
        def find() -> ImageSource:
            folder = keyset.root / kind / "oci"
            if not (folder / "oci-layout").is_file():
                raise MissingError(
                    f"keyset {keyset.name} has no {kind}",
                    hint=f"build it (mosb {kind} build), name one in manifest.yaml, "
                    "or give --skip-bootkit for an update of services only",
                )
            return ImageSource(selector=tag, folder=folder)

        return find

    return Defaults(hostfs=built("hostfs", "hostfs"), bootkit=built("bootkit", "bootkit-squashfs"))


def believed(
    project: str | None, ca: Path | None, product: UUID | None, *, needed: bool
) -> Believed | None:
    """Read the options of ``trust``; None when nothing was given and nothing is ``needed``.

    Raises: UsageError, MissingError, DocumentError.
    """
    from machineos.trust.keys.pem import read_certificate

    if project and ca:
        raise UsageError("--project and --ca both say whom to believe", hint="give one of them")
    if ca:
        return Believed(read_certificate(ca), product)
    if project:
        keyset, owner = keysets.open_project(project)
        if product not in {None, owner.uuid}:
            raise UsageError(f"--product is not the UUID of {project}, which is {owner.uuid}")
        return Believed(keyset.key("manifest-ca").certificate_pem(), owner.uuid)
    if needed or product:
        raise UsageError("give --project KEYSET:PROJECT or --ca CA.pem: whom to believe")
    return None


def fetch(registry: Registry, name: str, believed: Believed | None) -> Fetched:
    """Return the verified manifest ``PATH:TAG``. Raises: as ``fetch_verified``, UsageError."""
    from machineos.core.clock import SystemClock
    from machineos.document.verify.published import fetch_verified

    if believed is None:
        raise UsageError("give --project or --ca")
    path, tag = split_name(name)
    return fetch_verified(
        registry.repository(path),
        tag,
        ca_pem=believed.ca_pem,
        at=SystemClock().now(),
        product=believed.product,
    )
