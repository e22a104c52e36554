"""What real cosign wrote, recorded: cosign.json beside this file.

Made with cosign 2.6.5 and 3.1.3 (``go install github.com/sigstore/cosign/v3/cmd/cosign@v3.1.3``)
and a docker-registry on loopback, by keys of ``generate-key-pair`` and ``import-key-pair``::

    cosign sign --yes --key K.key --tlog-upload=false REGISTRY/t/k:1          # "tag"
    ... --registry-referrers-mode oci-1-1                                     # "referrer"
    cosign-3 sign ... --use-signing-config=false                              # "bundle"
    cosign-3 sign ... --upload=false --bundle out.bundle                      # "bundle file"
    cosign save --dir saved REGISTRY/t/k:1                                    # "saved index"

Each signs the manifest ``IMAGE``. Of ``WE_SIGNED``, which ``mosb manifest publish`` wrote, both
said::

    cosign verify --key manifest.pub --insecure-ignore-tlog=true REGISTRY/machine/record:1
    - The cosign claims were validated
    - The signatures were verified against the specified public key
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machineos.core.digest import Digest
from machineos.oci.model.documents import MANIFEST, Descriptor, Manifest, parse_manifest
from machineos.oci.model.repository import Repository

_RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "cosign.json").read_text())
IMAGE: bytes = _RECORDED["image"].encode()
DIGEST = Digest.of(IMAGE)
KEYS: dict[str, bytes] = {name: text.encode() for name, text in _RECORDED["keys"].items()}
BUNDLE_FILE: bytes = _RECORDED["bundle file"].encode()
SAVED_INDEX: bytes = _RECORDED["saved index"].encode()
WE_SIGNED: dict[str, str] = _RECORDED["we signed"]


@dataclass(frozen=True)
class Recorded:
    """One signature: its manifest, under ``tag`` or as a referrer, and what that names."""

    key: str
    tag: str | None
    manifest: bytes
    config: bytes
    blobs: tuple[bytes, ...]

    @property
    def document(self) -> Manifest:
        """The manifest, read."""
        return parse_manifest(self.manifest, name="recorded")

    def store(self, repository: Repository) -> Descriptor:
        """Put it where cosign put it."""
        _put_blobs(repository, self.document, self.config, *self.blobs)
        return repository.put_manifest(self.manifest, media_type=MANIFEST, tag=self.tag)


SIGNATURES = {
    name: Recorded(
        key=one["key"],
        tag=one["tag"],
        manifest=one["manifest"].encode(),
        config=one["config"].encode(),
        blobs=tuple(blob.encode() for blob in one["blobs"]),
    )
    for name, one in _RECORDED["signatures"].items()
}


def put_signed(repository: Repository, *names: str, tag: str = "1") -> Descriptor:
    """Store the image with these signatures of it."""
    image = parse_manifest(IMAGE, name="recorded")
    layer = base64.b64decode(_RECORDED["layer"])
    _put_blobs(repository, image, _RECORDED["config"].encode(), layer)
    found = repository.put_manifest(IMAGE, media_type=MANIFEST, tag=tag)
    for name in names:
        SIGNATURES[name].store(repository)
    return found


def _put_blobs(repository: Repository, manifest: Manifest, *blobs: bytes) -> None:
    for entry, blob in zip((manifest.config, *manifest.layers), blobs, strict=True):
        repository.put_blob(entry, (blob,))
