"""What the rules look at: a manifest, in whichever form it comes, as one shape.

``manifest.yaml``, ``install.json``, and what several documents of a machine mean together say the
same things; ``Declaration`` holds them. None stands for what this form does not have or what its
author left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from machineos.document.model.install import (
        Install,
        Mount,
        Network,
        Port,
        ServiceType,
        Storage,
        Target,
    )

TYPE_OF_NAME: dict[str, ServiceType] = {
    "hostfs": "hostfs",
    "bootkit": "fs-only",
    "livecd": "fs-only",
}


class DeclaredTarget(msgspec.Struct, frozen=True):
    """One target. ``source`` is where its image is, in ``manifest.yaml`` only."""

    service_name: str
    version: str
    service_type: ServiceType | None
    network: Network
    nsgroup: str = ""
    storage: tuple[Mount, ...] = ()
    digest: str | None = None
    size: int | None = None
    source: str | None = None

    @property
    def kind(self) -> ServiceType:
        """The type; what its name or custom says when it was not given."""
        return self.service_type or TYPE_OF_NAME.get(self.service_name, "container")


class Declaration(msgspec.Struct, frozen=True):
    """A whole manifest. ``complete``: what it mounts must be in it."""

    version: object
    product: str
    complete: bool
    targets: tuple[DeclaredTarget, ...]
    storage: tuple[Storage, ...]

    def each(self) -> Iterator[tuple[str, DeclaredTarget]]:
        """Yield every target with its path."""
        for index, target in enumerate(self.targets):
            yield f"targets[{index}]", target

    def mounts(self) -> Iterator[tuple[str, DeclaredTarget, Mount]]:
        """Yield every mount with its path and its target."""
        for path, target in self.each():
            for index, mount in enumerate(target.storage):
                yield f"{path}.storage[{index}]", target, mount

    def ports(self) -> Iterator[tuple[str, DeclaredTarget, Port]]:
        """Yield every port with its path and its target."""
        for path, target in self.each():
            for index, port in enumerate(target.network.ports or ()):
                yield f"{path}.network.ports[{index}]", target, port

    def volumes(self) -> Iterator[tuple[str, Storage]]:
        """Yield every volume with its path."""
        for index, item in enumerate(self.storage):
            yield f"storage[{index}]", item


def declared(install: Install) -> Declaration:
    """Return what a document declares by itself."""
    return together(
        install.product, install.targets, install.storage or (), complete=install.is_complete
    )


def together(
    product: str, targets: Iterable[Target], storage: Iterable[Storage], *, complete: bool = True
) -> Declaration:
    """Return what these targets and volumes declare as one."""
    return Declaration(
        version=1,
        product=product,
        complete=complete,
        targets=tuple(_declared(target) for target in targets),
        storage=tuple(storage),
    )


def _declared(target: Target) -> DeclaredTarget:
    return DeclaredTarget(
        service_name=target.service_name,
        version=target.version,
        service_type=target.service_type,
        network=target.network,
        nsgroup=target.nsgroup,
        storage=target.storage or (),
        digest=target.digest,
        size=target.size,
    )
