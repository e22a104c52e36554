"""Blobs of more than 2 GiB, to the last byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from machineos.core.digest import Digest
from machineos.errors import DigestError
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.documents import Descriptor
from unit.oci.layout.test_folder import sparse
from unit.oci.samples import LAYER

# sha256 of 2^31 zero bytes and one more: a zero, a one (openssl dgst says the same)
ZEROS = "b8030a8ab89280935633d8d991da3d9907c0f12e8b6fc3bfc515f4d440872b6e"
FLIPPED = "60f8b76720e075ea4e7151a3b56c5ebc97934e47f08ee20f9fffc891c35882fc"


def test_the_last_byte_past_2_gib_counts(tmp_path: Path) -> None:
    layout = LayoutRepository(tmp_path / "layout", writable=True)
    size = (1 << 31) + 1
    promised = Descriptor(media_type=LAYER, digest=Digest("sha256", ZEROS), size=size)
    sparse(layout.blob_path(promised.digest), size, last=b"\1")
    got = 0
    with layout.open_blob(promised) as chunks:
        with pytest.raises(DigestError, match=f"digest is sha256:{FLIPPED}"):
            got = sum(len(chunk) for chunk in chunks)
    assert got == 0
