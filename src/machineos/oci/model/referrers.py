"""Lists of what refers to a manifest: their entries, and the tag they have where nothing else tells
(OCI distribution specification 1.1, "Referrers Tag Schema"). Pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from machineos.oci.model.documents import INDEX, Descriptor, Index

if TYPE_CHECKING:
    from collections.abc import Iterable

    from machineos.core.digest import Digest
    from machineos.oci.model.documents import Manifest

_FALLBACK = re.compile(r"sha(?:256|512)-[0-9a-f]{64}")


def fallback_tag(digest: Digest) -> str:
    """Return the tag under which what refers to ``digest`` is listed."""
    return f"{digest.algorithm}-{digest.hex[:64]}"


def is_fallback_tag(tag: str) -> bool:
    """Whether a tag is the name of such a list, and none that somebody gave to an image."""
    return _FALLBACK.fullmatch(tag) is not None


def referrer(manifest: Manifest, descriptor: Descriptor) -> Descriptor:
    """Return the entry for a manifest in a list of referrers."""
    return Descriptor(
        media_type=descriptor.media_type,
        digest=descriptor.digest,
        size=descriptor.size,
        annotations=manifest.annotations,
        artifact_type=manifest.artifact_type or manifest.config.media_type,
    )


def with_referrer(entries: Iterable[Descriptor], entry: Descriptor) -> bytes | None:
    """Return the list with ``entry`` at its end as it is written, None when it is there already."""
    before = tuple(entries)
    if any(other.digest == entry.digest for other in before):
        return None
    return Index(media_type=INDEX, manifests=(*before, entry)).to_bytes()
