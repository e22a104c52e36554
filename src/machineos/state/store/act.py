"""The image store of the machine, for real: what comes in is whole, and what is there is looked at.

The store is a disk that has been in use, so a blob is not trusted because of its name. Invariant:
when an image has been stored, every blob of it was either written and hashed just now or read from
the disk (not from the kernel's memory) and hashed just now; a damaged one was replaced whole. The
price is one reading of what is there already, at the speed of SHA-256; a fresh store has nothing to
read. Layouts on a developer's machine compare sizes only (``oci/layout``).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from machineos.core.digest import Checker, Digest
from machineos.core.files import fsync_folder
from machineos.document.product.artifacts import ROOT_HASH_SIGNATURE
from machineos.errors import DigestError, VerificationError
from machineos.host.disk import direct
from machineos.oci.graph.copy import Progress, copy_graph
from machineos.oci.layout.folder import LayoutRepository

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.core.files import Sync
    from machineos.oci.model.documents import Descriptor


def is_whole(path: Path, descriptor: Descriptor) -> bool:
    """Whether the disk gives the bytes of ``descriptor`` for the file ``path``. What cannot be read
    (a bad sector) is not whole."""
    checker = Checker(descriptor.digest, descriptor.size, str(path))
    try:
        with direct.opened(path) as handle:
            for chunk in direct.read_chunks(handle):
                checker.update(chunk)
        checker.finish()
    except (DigestError, OSError):
        return False
    return True


def store_image(
    source: Path, store: Path, image: Digest, *, tag: str, sync: Sync = os.fsync
) -> tuple[Digest, ...]:
    """Copy an image with its root hash signatures from layout to layout, durably; ``tag`` comes
    last. Return the blobs that were there and damaged.

    Raises: DigestError, MissingError, VerificationError, SpaceError.
    """
    damaged: list[Digest] = []

    def check(path: Path, descriptor: Descriptor) -> bool:
        whole = is_whole(path, descriptor)
        if not whole:
            damaged.append(descriptor.digest)
        return whole

    left_out: list[str] = []

    def note(progress: Progress) -> None:
        left_out[:] = progress.skipped

    into = LayoutRepository(store, writable=True, check=check)
    copy_graph(
        LayoutRepository(source), into, str(image),
        tag=tag, referrers=(ROOT_HASH_SIGNATURE,), progress=note,
    )  # fmt: skip
    if left_out:
        raise VerificationError(f"image {image}: a signature of it cannot be stored: {left_out[0]}")
    fsync_folder(store.parent, sync=sync)
    return tuple(dict.fromkeys(damaged))
