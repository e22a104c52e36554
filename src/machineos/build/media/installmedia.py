"""The two media of a keyset: what goes on them and who signs it.

What the medium holds besides, and under which names, is in ``live``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.build.media.live import NAME, TAG, Placed, live_source, parse_placed
from machineos.build.media.medium import build_medium
from machineos.build.os import workshop
from machineos.build.publish.plan import Publishing
from machineos.build.publish.publish import Place, publish
from machineos.build.publish.source import parse_source
from machineos.build.recipe.inspection import Inspector
from machineos.build.recipe.record import Record
from machineos.build.recipe.stageplan import DEFAULT_EPOCH
from machineos.document.product.artifacts import CERTIFICATE, ROOT_HASH_SIGNATURE, SIGNATURE
from machineos.document.verify.images import REPOSITORY
from machineos.document.verify.published import fetch_verified
from machineos.errors import MissingError
from machineos.oci.graph.copy import copy_graph
from machineos.oci.layout.folder import LayoutRegistry, LayoutRepository
from machineos.oci.model.reference import ImageSource
from machineos.trust.keys.signer import FileSigner

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from machineos.core.clock import Clock
    from machineos.core.secret import Secret
    from machineos.oci.model.repository import Repository
    from machineos.trust.keys.keyset import Keyset, Project


def build_media(
    keyset: Keyset,
    project: Project,
    *,
    output: Path,
    passphrase: Secret | None,
    manifest: str,
    variant: str = workshop.ORDINARY,
    clock: Clock,
    say: Callable[[str], None],
    epoch: int = DEFAULT_EPOCH,
) -> dict[str, Path]:
    """Write ``provision.iso`` and ``install.iso`` and return their paths by name.

    ``manifest`` (``oci:DIR:PATH:TAG``, may be empty) is verified before it goes on the medium.
    Raises: MissingError (hostfs or bootkit not built), VerificationError, ToolError.
    """
    boot = workshop.bootkit_folder(keyset.root, variant)
    shim, *kernels = (boot / name for name in ("shim.efi", "provision.efi", "install.efi"))
    for what, parts in (
        ("hostfs", (workshop.hostfs_layout(keyset.root, variant) / "index.json",)),
        ("bootkit", (shim, *kernels, boot / "oci" / "index.json")),
    ):
        if not all(part.is_file() for part in parts):
            raise MissingError(
                f"keyset {keyset.name} has no {what}, or not all of it",
                hint=f"build it: mosb {what} build --keyset {keyset.name}",
            )
    placed = parse_placed(manifest)

    def fill(registry: LayoutRegistry) -> None:
        inspector = Inspector(output, Record(output / ".proved"), say=say)
        _publish_live(registry, keyset, project, variant, passphrase, clock, inspector)
        if placed is not None:
            say(f"copying {placed.reference}")
            _copy_manifest(placed, registry, keyset, clock)

    output.mkdir(parents=True, exist_ok=True)
    provision, install = output / "provision.iso", output / "install.iso"
    say("provision.iso")
    build_medium(shim, boot / "provision.efi", provision, epoch=epoch)
    say("install.iso")
    build_medium(
        shim, boot / "install.efi", install, epoch=epoch,
        live=f"{NAME}:{TAG}", install=placed.reference if placed else "", fill=fill,
    )  # fmt: skip
    return {"provision": provision, "install": install}


def _publish_live(
    registry: LayoutRegistry,
    keyset: Keyset,
    project: Project,
    variant: str,
    passphrase: Secret | None,
    clock: Clock,
    inspector: Inspector,
) -> None:
    source = live_source(project.name, keyset.root, variant)
    publishing = Publishing(
        source=parse_source(source, name="live manifest"),
        signer=FileSigner.open(project.pair, passphrase),
        ca_pem=keyset.key("manifest-ca").certificate_pem(),
        at=clock.now(),
        product=project.uuid,
        open_source=_open_layout,
        inspector=inspector,
    )
    publish(publishing, Place(registry, NAME, TAG))


def _copy_manifest(placed: Placed, sink: LayoutRegistry, keyset: Keyset, clock: Clock) -> None:
    source = LayoutRegistry(placed.folder, links=True)
    fetched = fetch_verified(
        source.repository(placed.name),
        placed.tag,
        ca_pem=keyset.key("manifest-ca").certificate_pem(),
        at=clock.now(),
        product=None,
    )
    store, target = source.repository(REPOSITORY), sink.repository(REPOSITORY)
    for entry in fetched.verified.install.targets:
        copy_graph(store, target, entry.digest, tag=entry.tag, referrers=[ROOT_HASH_SIGNATURE])
    copy_graph(
        source.repository(placed.name),
        sink.repository(placed.name),
        str(fetched.descriptor.digest),
        tag=placed.tag,
        referrers=[CERTIFICATE, SIGNATURE],
    )


def _open_layout(source: ImageSource) -> Repository:
    if source.folder is None:
        raise MissingError(f"{source} is not an OCI layout")
    return LayoutRepository(source.folder, links=True)
