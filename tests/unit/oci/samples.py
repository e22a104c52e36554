"""Images for tests, put into any repository."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from machineos.core.digest import Digest
from machineos.oci.model.documents import (
    CONFIG,
    EMPTY_DESCRIPTOR,
    INDEX,
    MANIFEST,
    Descriptor,
    Index,
    Manifest,
)

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from machineos.oci.model.repository import Repository
    from machineos.oci.registry.client import HttpRegistry

LAYER = "application/vnd.stacker.image.layer.squashfs+zstd+verity"
SIGNATURE = "application/vnd.machine.signature"
DATA = bytes(range(256)) * 2000  # 512,000 bytes, more than one piece


class NoWaiting:
    """A clock for which sleeping costs no time; it remembers how long it was to sleep."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> datetime:
        raise NotImplementedError

    def monotonic(self) -> float:
        import time

        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def auth_file(path: Path, host: str, user: str, password: str) -> Path:
    """Write the credentials for a host as ``docker login`` does; return where."""
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"auths": {host: {"auth": pair}}}))
    return path


def descriptor(data: bytes) -> Descriptor:
    """Return the descriptor of a blob."""
    return Descriptor(media_type="application/x", digest=Digest.of(data), size=len(data))


def read(client: HttpRegistry, data: bytes = DATA) -> bytes:
    """Pull the blob ``data``, however the registry behaves."""
    with client.repository("a/b").open_blob(descriptor(data)) as chunks:
        return b"".join(chunks)


def put_bytes(repository: Repository, data: bytes, media_type: str = LAYER) -> Descriptor:
    """Store a blob."""
    descriptor = Descriptor(media_type=media_type, digest=Digest.of(data), size=len(data))
    repository.put_blob(descriptor, (data,))
    return descriptor


@dataclass(frozen=True)
class Image:
    """What ``put_image`` stored."""

    root: Descriptor
    layers: tuple[Descriptor, ...]


def put_image(
    repository: Repository, tag: str | None = "1.0", layers: tuple[bytes, ...] = (b"layer",)
) -> Image:
    """Store an image."""
    config = put_bytes(
        repository, b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers"}}', CONFIG
    )
    stored = tuple(put_bytes(repository, layer) for layer in layers)
    body = Manifest(media_type=MANIFEST, config=config, layers=stored).to_bytes()
    return Image(repository.put_manifest(body, media_type=MANIFEST, tag=tag), stored)


def put_artifact(
    repository: Repository, subject: Descriptor, data: bytes, kind: str = SIGNATURE
) -> Descriptor:
    """Store an artifact that refers to ``subject``."""
    repository.put_blob(EMPTY_DESCRIPTOR, (b"{}",))
    layer = put_bytes(repository, data, kind)
    body = Manifest(
        media_type=MANIFEST,
        config=EMPTY_DESCRIPTOR,
        layers=(layer,),
        artifact_type=kind,
        subject=subject,
        annotations={"note": data.decode()[:20]},
    ).to_bytes()
    return repository.put_manifest(body, media_type=MANIFEST)


def put_index(repository: Repository, tag: str, *names: str) -> Descriptor:
    """Store an index with an image per architecture."""
    entries = []
    for name in names:
        image = put_image(repository, None, (f"layer for {name}".encode(),))
        platform = {"architecture": name, "os": "linux"}
        entries.append(
            Descriptor(
                media_type=MANIFEST,
                digest=image.root.digest,
                size=image.root.size,
                platform=platform,
            )
        )
    body = Index(media_type=INDEX, manifests=tuple(entries)).to_bytes()
    return repository.put_manifest(body, media_type=INDEX, tag=tag)
