"""What an image is used for, and what looks into its layers before it is: values without effects.

``inspection`` does the looking; who decides what is published knows only this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from machineos.document.model.install import Mount
    from machineos.oci.model.documents import Descriptor, Manifest
    from machineos.oci.model.repository import Repository


@dataclass(frozen=True, slots=True)
class Container:
    """What a container will have mounted, and who it runs as."""

    mounts: tuple[Mount, ...]
    user: str


@dataclass(frozen=True, slots=True)
class Use:
    """The image of the service ``name``, called ``what`` in messages, has the layer as the one of
    number ``part``; ``container`` None is one that is not run."""

    name: str
    what: str
    container: Container | None = None
    part: int = 0


class Inspects(Protocol):
    """Looks into layers that are ready made. Raises: see ``Inspector``."""

    def packed(self, manifest: Manifest) -> bool:
        """Whether all layers of an image were packed here."""
        ...

    def inspect(self, repository: Repository, manifest: Manifest, use: Use) -> None:
        """Look at every layer of an image."""
        ...

    def inspect_layer(self, repository: Repository, layer: Descriptor, uses: Sequence[Use]) -> None:
        """Look at one layer, for all its uses."""
        ...

    def look(
        self,
        layer: Descriptor,
        chunks: Iterator[bytes],
        uses: Sequence[Use],
    ) -> None:
        """The same of a layer that is being read."""
        ...
