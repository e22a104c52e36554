"""Converting an image: what is asked for, and what follows from what is found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from machineos.build.recipe.member import Limits, Policy
from machineos.document.model.image import MACHINE, Platform
from machineos.errors import DocumentError, Fault
from machineos.oci.model.atomfs import parse_layer_type

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from machineos.build.recipe.config import ImageConfig
    from machineos.build.recipe.tarheader import Facts
    from machineos.core.clock import Clock
    from machineos.core.digest import Digest
    from machineos.document.model.install import Mount
    from machineos.oci.model.atomfs import FilesystemKind
    from machineos.oci.model.documents import Manifest


@dataclass(frozen=True, slots=True)
class Unpacking:
    """How to take an image apart. ``work`` is a folder for temporary files, on a disk with room
    for the unpacked image."""

    work: Path
    limits: Limits = field(default_factory=Limits)
    policy: Policy = field(default_factory=Policy)
    progress: Callable[[str], None] = field(default=lambda _line: None)


@dataclass(frozen=True, slots=True)
class Conversion(Unpacking):
    """What to make of an image.

    ``clock`` tells which times are in the future; ``mounts`` is what a container of it will have
    mounted, for which there must be folders (None: nothing is known of them). ``packed`` says of a
    ready image that we packed it ourselves: a file system of anybody else is packed again.
    """

    clock: Clock = field(kw_only=True)
    epoch: int = field(kw_only=True)
    platform: Platform = field(default=MACHINE, kw_only=True)
    kind: FilesystemKind = field(default="squashfs", kw_only=True)
    mounts: tuple[Mount, ...] | None = field(default=None, kw_only=True)
    packed: Callable[[Manifest], bool] = field(default=lambda _: False, kw_only=True)


def require_image(manifest: Manifest, name: str) -> None:
    """Raises: DocumentError for what is an artifact, or has no layers."""
    if manifest.artifact_type or not manifest.layers:
        message = "is not an image: it is an artifact or has no layers"
        raise DocumentError(name, [Fault("", 0, message)])


def require_usable(
    config: ImageConfig, diff_ids: tuple[Digest, ...], manifest: Manifest, name: str
) -> None:
    """Raises: DocumentError when the image is not for Linux, or its documents do not fit."""
    if config.os != "linux":
        message = f"is {config.os[:40]!r}, only linux can be used"
        raise DocumentError(name, [Fault("os", 0, message)])
    if len(diff_ids) != len(manifest.layers):
        message = f"has {len(diff_ids)} entries for {len(manifest.layers)} layers"
        raise DocumentError(name, [Fault("rootfs.diff_ids", 0, message)])


def converted_kind(manifest: Manifest) -> FilesystemKind | None:
    """Return the file system of an image that is one verity layer already, None for any other."""
    if len(manifest.layers) != 1:
        return None
    kind = parse_layer_type(manifest.layers[0].media_type)
    return None if kind is None else kind.filesystem


def why_not_streamed(kind: FilesystemKind, root: Facts, *, newest: int, now: float) -> str:
    """Return why a layer takes a folder of files (and so root), empty when a stream will do.

    ``newest`` is the newest time in the tree, ``now`` the current one, in seconds after 1970.
    """
    if kind != "squashfs":
        return f"packing {kind}"
    if newest > now:
        return f"an image with a time in the future ({newest} seconds after 1970)"
    if (root.uid, root.gid) != (0, 0) or root.xattrs:
        return "an image whose root folder is not 0:0 or has attributes"
    return ""
