"""Storing images on the machine, as steps. Touches nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from machineos.core.digest import Digest
from machineos.core.steps import Step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

STAGED = "staged"  # a fact: all images are there and verified


@dataclass(frozen=True, slots=True)
class StoreImage(Step[tuple[Digest, ...]]):
    """Copy an image with its root hash signatures from the layout ``source`` into the layout
    ``store``, durably; ``tag`` points to it last. A blob that is there already is read from the
    disk and hashed first; the answer names those that were damaged and are whole now."""

    point: ClassVar[str] = "image"
    after: ClassVar[frozenset[str]] = frozenset({STAGED})
    source: Path
    store: Path
    image: Digest
    tag: str

    @property
    def where(self) -> str:
        """The image."""
        return self.image.short


class StoreHost(Protocol):
    """What the steps of this room need of a machine."""

    def store_image(
        self, source: Path, store: Path, image: Digest, *, tag: str
    ) -> tuple[Digest, ...]:
        """See ``StoreImage``. Raises: DigestError, MissingError, SpaceError."""
        ...


CALLS: Mapping[type[Step[Any]], Callable[[StoreHost, Any], object]] = {
    StoreImage: lambda host, step: host.store_image(
        step.source, step.store, step.image, tag=step.tag
    ),
}
