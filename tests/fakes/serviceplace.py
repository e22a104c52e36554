"""A place in memory for the contract of hosts that run services."""

from __future__ import annotations

from pathlib import Path

from contracts.place import TREE
from fakes.service import MemoryHost
from machineos.core.digest import Digest
from machineos.core.word import RootHash
from machineos.host.kernel.flags import Flag
from machineos.oci.model.atomfs import Layer, layer_media_type
from machineos.service.plan.model import Folders

WORDS = {"ro": Flag.RDONLY, "nosuid": Flag.NOSUID, "nodev": Flag.NODEV, "noexec": Flag.NOEXEC}


class MemoryPlace:
    """``contracts.service.Place`` in memory."""

    def __init__(self) -> None:
        self.host = MemoryHost()
        self.folders = Folders(
            Path("/run/machineos"), self.host.unit_folder, Path("/run/data"), Path("/dev/group")
        )
        digest = Digest.of(b"the image")
        self.host.trees[digest.hex] = dict(TREE)
        self.layer = Layer(digest, 9, layer_media_type("squashfs", "zstd"), RootHash("1" * 64))
        self.blob, self.signature = Path("blob"), Path("signature")

    @property
    def lines(self) -> list[str]:
        return self.host.lines

    def put_blob(self, data: bytes) -> Digest:
        digest = Digest.of(data)
        self.host.blobs[digest] = data
        return digest

    def mode(self, path: Path) -> int:
        if path in self.host.files:
            return self.host.files[path][1]
        found = self.host.mounts.get(path.parent)
        if found is not None and found.disk is not None and path.name in found.disk.owners:
            return 0o700
        return self.host.made[path]

    def names(self, folder: Path) -> list[Path]:
        return [path for path in self.host.files if path.parent == folder]

    def owner(self, path: Path) -> tuple[int, int]:
        found = self.host.mounts[path.parent].disk
        assert found is not None
        return found.owners[path.name]

    def options(self, path: Path) -> list[frozenset[str]]:
        flags = self.host.mounts[path].flags
        return [frozenset(word for word, flag in WORDS.items() if flag & flags)]

    def kind(self, path: Path) -> str:
        return self.host.mounts[path].kind

    def rules(self) -> str:
        return "".join(self.host.tables)

    def addresses(self, bridge: str) -> set[str]:
        return set(self.host.bridges[bridge])

    def switch(self, name: str) -> str:
        return self.host.switches[name]
