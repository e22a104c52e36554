"""Small OCI images of tar layers in a layout."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

import msgspec

from machineos.core.digest import Digest
from machineos.core.run import run
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.documents import CONFIG, INDEX, MANIFEST, Descriptor, Index, Manifest
from waiting import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

TAR = "application/vnd.oci.image.layer.v1.tar"
EPOCH = 1_700_000_000


def compress(data: bytes, kind: str) -> bytes:
    """The layer as its media type's suffix says."""
    if kind == "+gzip":
        return gzip.compress(data, mtime=0)
    if kind == "+zstd":
        return run(["zstd", "-c", "-q"], input=data, timeout=PATIENCE).stdout
    return data


def unpack(image: Path, tree: Path) -> None:
    """Write the files of a squashfs of ours into the new folder ``tree``."""
    flags = ("-no-progress", "-quiet", "-strict-errors", "-no-wildcards", "-dest", tree)
    run(["unsquashfs", *flags, image], timeout=PATIENCE)


def put(
    repository: LayoutRepository,
    *layers: bytes,
    suffix: str = "",
    tag: str | None = "t",
    diff_ids: list[str] | None = None,
    media_type: str = "",
    config: dict[str, Any] | None = None,
) -> Descriptor:
    """Store an image with these tar layers, uncompressed as given."""
    entries = []
    for layer in layers:
        data = compress(layer, suffix)
        entry = Descriptor(
            media_type=media_type or TAR + suffix, digest=Digest.of(data), size=len(data)
        )
        repository.put_blob(entry, (data,))
        entries.append(entry)
    ids = [str(Digest.of(layer)) for layer in layers] if diff_ids is None else diff_ids
    body = {
        "architecture": "amd64",
        "os": "linux",
        "config": config or {"Entrypoint": ["/bin/x"], "Env": ["A=b"], "User": "7"},
        "rootfs": {"type": "layers", "diff_ids": ids},
        "history": [{"created_by": "somebody"}],
    }
    encoded = msgspec.json.encode(body)
    descriptor = Descriptor(media_type=CONFIG, digest=Digest.of(encoded), size=len(encoded))
    repository.put_blob(descriptor, (encoded,))
    manifest = Manifest(media_type=MANIFEST, config=descriptor, layers=tuple(entries))
    return repository.put_manifest(manifest.to_bytes(), media_type=MANIFEST, tag=tag)


def put_index(repository: LayoutRepository, entries: dict[str, Descriptor], tag: str) -> None:
    """Store an index; keys are ``os/architecture``."""
    manifests = []
    for platform, entry in entries.items():
        system, _, machine = platform.partition("/")
        manifests.append(
            msgspec.structs.replace(entry, platform={"os": system, "architecture": machine})
        )
    index = Index(media_type=INDEX, manifests=tuple(manifests))
    repository.put_manifest(index.to_bytes(), media_type=INDEX, tag=tag)


def layout(folder: Path) -> LayoutRepository:
    """A layout to write to."""
    return LayoutRepository(folder, writable=True)
