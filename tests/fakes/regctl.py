"""Image layouts as regctl 0.11 writes them (``regctl image copy --referrers ... ocidir://``).

Recorded from its output: what refers to a manifest is in no entry of its own, only in an index with
the tag of the referrers tag schema, and each entry has a time.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from machineos.core.digest import Digest
from machineos.oci.model.documents import INDEX, REF_NAME, parse_manifest
from machineos.oci.model.referrers import fallback_tag

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.oci.model.repository import Repository

_TIME = "2026-11-30T00:52:59Z"


def write(source: Repository, tag: str, folder: Path) -> None:
    """Copy the image ``tag`` of ``source`` and what refers to it into a new layout."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes) -> Digest:
        digest = Digest.of(data)
        (blobs / digest.hex).write_bytes(data)
        return digest

    def copy(reference: str) -> bytes:
        data = source.manifest(reference)[1]
        manifest = parse_manifest(data, name=reference)
        for part in (manifest.config, *manifest.layers):
            put(source.blob(part, limit=1 << 20))
        put(data)
        return data

    root = source.resolve(tag)
    copy(tag)
    referrers = source.referrers(root.digest)
    for entry in referrers:
        copy(str(entry.digest))
    listed = [entry.to_json() for entry in referrers]
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}).encode()
    entries = [
        {
            "mediaType": INDEX,
            "digest": str(put(index)),
            "size": len(index),
            "annotations": {
                "org.opencontainers.image.created": _TIME,
                REF_NAME: fallback_tag(root.digest),
            },
        },
        {
            **root.to_json(),
            "annotations": {"org.opencontainers.image.created": _TIME, REF_NAME: tag},
        },
    ]
    (folder / "index.json").write_text(
        json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
    )
    (folder / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
