"""The two media of a keyset: what goes on them and who signs it.

The installer's own root is the ordinary hostfs with the ordinary bootkit, published by the project
into the medium's layouts as ``machine/live``; the manifest to install, when one is given, lies
beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.build.media.medium import build_medium
from machineos.build.os import appliance
from machineos.build.publish.plan import Publishing
from machineos.build.publish.publish import Place, publish
from machineos.build.publish.source import parse_source
from machineos.build.recipe.build import DEFAULT_EPOCH
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

LIVE = "machine/live"
_LIVE_SOURCE = """version: 1
product: {product}
update_type: complete
targets:
  - service_name: hostfs
    source: "oci:{hostfs}:{hostfs_tag}"
    version: "{version}"
    service_type: hostfs
    network: {{type: host}}
  - service_name: bootkit
    source: "oci:{bootkit}:{bootkit_tag}"
    version: "{version}"
    service_type: fs-only
    network: {{type: host}}
"""


def build_media(
    keyset: Keyset,
    project: Project,
    *,
    output: Path,
    passphrase: Secret | None,
    manifest: str,
    variant: str = appliance.ORDINARY,
    clock: Clock,
    say: Callable[[str], None],
    epoch: int = DEFAULT_EPOCH,
) -> dict[str, Path]:
    """Write ``provision.iso`` and ``install.iso`` and return their paths by name.

    ``manifest`` (``oci:DIR:PATH:TAG``, may be empty) is verified before it goes on the medium.
    Raises: MissingError (hostfs or bootkit not built), VerificationError, ToolError.
    """
    boot = appliance.bootkit_folder(keyset.root, variant)
    shim = boot / "shim.efi"
    if not shim.is_file():
        raise MissingError(
            f"keyset {keyset.name} has no bootkit",
            hint=f"mosb bootkit build --keyset {keyset.name}",
        )
    source, name = _split(manifest)

    def fill(registry: LayoutRegistry) -> None:
        _publish_live(registry, keyset, project, variant, passphrase, clock)
        if source is not None:
            say(f"copying {name}")
            _copy_manifest(source, registry, name, keyset, clock)

    output.mkdir(parents=True, exist_ok=True)
    provision, install = output / "provision.iso", output / "install.iso"
    say("provision.iso")
    build_medium(shim, boot / "provision.efi", provision, epoch=epoch)
    say("install.iso")
    build_medium(
        shim, boot / "install.efi", install, epoch=epoch,
        live=f"{LIVE}:1", install=name, fill=fill,
    )  # fmt: skip
    return {"provision": provision, "install": install}


def _publish_live(
    registry: LayoutRegistry,
    keyset: Keyset,
    project: Project,
    variant: str,
    passphrase: Secret | None,
    clock: Clock,
) -> None:
    hostfs = appliance.hostfs_layout(keyset.root, variant)
    bootkit = appliance.bootkit_folder(keyset.root, variant) / "oci"
    text = _LIVE_SOURCE.format(
        product=project.name,
        hostfs=hostfs, hostfs_tag=appliance.HOSTFS_TAG,
        bootkit=bootkit, bootkit_tag=appliance.BOOTKIT_TAG,
        version="1",
    )  # fmt: skip
    publishing = Publishing(
        source=parse_source(text.encode(), name="live manifest"),
        signer=FileSigner.open(project.pair, passphrase),
        ca_pem=keyset.key("manifest-ca").certificate_pem(),
        at=clock.now(),
        product=project.uuid,
        open_source=_open_layout,
    )
    publish(publishing, Place(registry, LIVE, "1"))


def _copy_manifest(
    source: LayoutRegistry, sink: LayoutRegistry, name: str, keyset: Keyset, clock: Clock
) -> None:
    path, _, tag = name.rpartition(":")
    fetched = fetch_verified(
        source.repository(path),
        tag,
        ca_pem=keyset.key("manifest-ca").certificate_pem(),
        at=clock.now(),
        product=None,
    )
    store, target = source.repository(REPOSITORY), sink.repository(REPOSITORY)
    for entry in fetched.verified.install.targets:
        copy_graph(store, target, entry.digest, tag=entry.tag, referrers=[ROOT_HASH_SIGNATURE])
    copy_graph(
        source.repository(path), sink.repository(path), str(fetched.descriptor.digest), tag=tag,
        referrers=[CERTIFICATE, SIGNATURE],
    )  # fmt: skip


def _open_layout(source: ImageSource) -> Repository:
    if source.folder is None:
        raise MissingError(f"{source} is not an OCI layout")
    return LayoutRepository(source.folder)


def _split(manifest: str) -> tuple[LayoutRegistry | None, str]:
    """Return registry and name of ``oci:DIR:PATH:TAG``."""
    from pathlib import Path as Folder

    if not manifest:
        return None, ""
    folder, _, rest = manifest.removeprefix("oci:").partition(":")
    return LayoutRegistry(Folder(folder)), rest
