"""Mounting images of a layout, as steps. Touches nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from machineos.core.steps import Step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from machineos.core.digest import Digest


@dataclass(frozen=True, slots=True)
class MountImage(Step[None]):
    """Mount the one layer of an image in the layout ``source`` at ``folder``, which is made.

    ``signature`` is that of the layer's root hash; the kernel judges it.
    """

    source: Path
    image: Digest
    signature: bytes = field(repr=False)
    folder: Path


class ImageHost(Protocol):
    """What the steps of this room need of a machine."""

    def mount_image(self, source: Path, image: Digest, signature: bytes, folder: Path) -> None:
        """See ``MountImage``. Raises: SignatureError, VerificationError, ConflictError."""
        ...


CALLS: Mapping[type[Step[Any]], Callable[[ImageHost, Any], object]] = {
    MountImage: lambda host, step: host.mount_image(
        step.source, step.image, step.signature, step.folder
    ),
}
