"""An OCI layout with squashfs images, and a root with one program to make them of."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from contracts.linux import pack
from machineos.core import run
from machineos.core.digest import Digest
from machineos.document.between import handover
from machineos.oci.model.atomfs import OLD_ROOT_HASH

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PROGRAMS = (
    "sh", "id", "cat", "mount", "sleep", "unshare", "httpd", "nc", "ip", "touch", "ls", "readlink",
)  # fmt: skip
Built = tuple[str, str, handover.Layer]


class Store:
    """An OCI layout with squashfs images, made from folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.blobs = folder / "blobs/sha256"
        self.blobs.mkdir(parents=True)

    def put(self, data: bytes) -> Digest:
        digest = Digest.of(data)
        (self.blobs / digest.hex).write_bytes(data)
        return digest

    def add(self, tree: Path, config: Mapping[str, object]) -> Built:
        """Return image digest, configuration digest, and layer."""
        data = pack(tree, self.folder / "new.squashfs")
        layer = self.put(data)
        return self.describe(layer, len(data), config)

    def describe(self, layer: Digest, size: int, config: Mapping[str, object]) -> Built:
        body = json.dumps({"architecture": "amd64", "os": "linux", "config": config}).encode()
        described = self.put(body)
        root_hash = layer.hex  # any 64 digits: nothing here checks blocks against it
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": str(described),
                "size": len(body),
            },
            "layers": [
                {
                    "mediaType": "application/vnd.stacker.image.layer.squashfs+zstd+verity",
                    "digest": str(layer),
                    "size": size,
                    "annotations": {OLD_ROOT_HASH: root_hash},
                }
            ],
        }
        signature = self.folder / "signature.p7s"
        signature.write_bytes(b"not looked at without dm-verity")
        image = self.put(json.dumps(manifest).encode())
        blob = f"blobs/sha256/{layer.hex}"
        return (
            str(image),
            str(described),
            handover.Layer(
                digest=str(layer), root_hash=root_hash, blob=blob, signature="signature.p7s"
            ),
        )


def make_tree(folder: Path) -> Path:
    """Make a root with busybox and the folders that every image needs."""
    for name in ("proc", "sys", "dev", "tmp", "run", "var/tmp", "bin", "etc", "data"):
        (folder / name).mkdir(parents=True)
    source = run.find("busybox")
    assert source is not None
    shutil.copy(source, folder / "bin/busybox")
    for name in PROGRAMS:
        (folder / "bin" / name).symlink_to("busybox")
    (folder / "etc/passwd").write_text(
        "root:x:0:0:r:/root:/bin/sh\napp:x:1000:1001:a:/data:/bin/sh\n"
    )
    (folder / "etc/group").write_text("root:x:0:\napp:x:1001:\nweb:x:33:\n")
    return folder
