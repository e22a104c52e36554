"""The manifest that a launch installs, fetched and verified from this host."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from machineos.document.verify.published import fetch_verified
from machineos.launch.request import seen_from_here
from machineos.oci.layout.folder import LayoutRegistry

if TYPE_CHECKING:
    from machineos.core.clock import Clock
    from machineos.document.product.install import Install
    from machineos.oci.model.place import Place
    from machineos.oci.model.repository import Registry
    from machineos.oci.registry.access import Access
    from machineos.trust.keys.keyset import Keyset, Project


def open_registry(place: Place, access: Access) -> Registry:
    """Return the registry as this host sees it. Raises: TransferError."""
    if place.at.folder is not None:
        return LayoutRegistry(place.at.folder, links=True)
    host = seen_from_here(place.at.host)
    return replace(access, plain_http=place.plain_http).registry(host)


def fetch_install(
    place: Place,
    keyset: Keyset,
    project: Project,
    clock: Clock,
    access: Access,
) -> Install:
    """Return the manifest, verified from here, before any machine is made for it.

    Raises: MissingError, VerificationError, TransferError.
    """
    fetched = fetch_verified(
        open_registry(place, access).repository(place.name),
        place.tag,
        ca_pem=keyset.key("manifest-ca").certificate_pem(),
        at=clock.now(),
        product=project.uuid,
    )
    return fetched.verified.install
