"""Which image of an index is for a platform. Follows the OCI image specification, "Image Index".

One rule for whoever asks: the same as asked; then the variant that every machine of the
architecture has, which some builders name; then the only one that says nothing at all. An image for
newer processors (``amd64/v3``) comes last: the machine may not have one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.errors import MissingError
from machineos.oci.model.architecture import architecture

if TYPE_CHECKING:
    from machineos.oci.model.documents import Descriptor, Index

# The variant that is meant where none is given.
_PLAIN = {"amd64": "v1", "arm64": "v8"}


def platform_name(entry: Descriptor) -> str:
    """Return ``os/architecture[/variant]`` of an entry of an index, ``unknown`` if it has none."""
    platform = entry.platform or {}
    parts = [platform.get("os"), platform.get("architecture"), platform.get("variant")]
    return "/".join(str(part) for part in parts if part) or "unknown"


def choose(index: Index, platform: tuple[str, str], name: str) -> Descriptor:
    """Return the image of an index for ``platform`` (operating system, architecture).

    Raises: MissingError, with what there is.
    """
    ranked = [(_rank(entry, platform), number) for number, entry in enumerate(index.manifests)]
    best = min(((rank, number) for rank, number in ranked if rank is not None), default=None)
    if best is not None:
        return index.manifests[best[1]]
    bare = [entry for entry in index.manifests if not entry.platform]
    if len(bare) == 1:
        return bare[0]
    there = ", ".join(sorted({platform_name(entry) for entry in index.manifests}))
    raise MissingError(
        f"{name}: is not there for {'/'.join(platform)}", hint=f"it is for: {there:.500}"
    )


def _rank(entry: Descriptor, platform: tuple[str, str]) -> tuple[int, str] | None:
    """Return how well an entry fits, less is better; None when it does not."""
    said = entry.platform or {}
    kind = architecture(str(said.get("architecture") or ""))
    if (said.get("os"), kind) != platform:
        return None
    variant = str(said.get("variant") or "")
    if not variant:
        return 0, ""
    return (1, "") if variant == _PLAIN.get(kind) else (2, variant)
