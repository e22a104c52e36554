"""A finished layer, as a value: a file system with its dm-verity tree appended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from machineos.oci.model.atomfs import root_hash_annotations
from machineos.oci.model.documents import Descriptor

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.core.digest import Digest
    from machineos.core.word import RootHash


@dataclass(frozen=True, slots=True)
class VerityLayer:
    """A finished layer: ``path`` holds ``size`` bytes, the first ``data_size`` of them the file
    system (padded to 4096), the rest the hash tree."""

    path: Path
    size: int
    digest: Digest
    root_hash: RootHash
    media_type: str
    data_size: int

    @property
    def descriptor(self) -> Descriptor:
        """The layer's entry in a manifest, with both root hash annotations."""
        return Descriptor(
            media_type=self.media_type,
            digest=self.digest,
            size=self.size,
            annotations=root_hash_annotations(self.root_hash),
        )


def salt_and_uuid(data: str) -> tuple[str, str]:
    """Return salt and UUID of a hash tree for a file system with this sha256 (hex): the same bytes
    give the same tree."""
    return data, str(UUID(hex=data[:32], version=4))
