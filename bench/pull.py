"""What is measured as "pull and verify": the calls that the installer makes for one target.

Arguments: registry, manifest name, CA certificate, product UUID, folder of the new layout.
"""

from __future__ import annotations

import sys
from pathlib import Path
from uuid import UUID

from machineos.core.clock import SystemClock
from machineos.document.product.artifacts import ROOT_HASH_SIGNATURE
from machineos.document.verify.images import REPOSITORY, root_hash_signatures, verify_target
from machineos.document.verify.published import fetch_verified
from machineos.errors import SignatureError
from machineos.oci.graph.copy import copy_graph
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.registry.client import HttpRegistry


def main(address: str, name: str, ca: str, product: str, folder: str) -> None:
    """Fetch and verify. Raises: whatever does not verify."""
    path, _, tag = name.rpartition(":")
    store = LayoutRepository(Path(folder), writable=True)
    with HttpRegistry(address) as registry:
        fetched = fetch_verified(
            registry.repository(path),
            tag,
            ca_pem=Path(ca).read_bytes(),
            at=SystemClock().now(),
            product=UUID(product),
        )
        source = registry.repository(REPOSITORY)
        for target in fetched.verified.install.targets:
            image = verify_target(source, target)
            copy_graph(
                source, store, target.digest, tag=target.tag, referrers=[ROOT_HASH_SIGNATURE]
            )
            found = root_hash_signatures(store, target, image, fetched.verified.publisher)
            if not all(found.values()):
                raise SignatureError(f"{name}: a layer has no signature")


if __name__ == "__main__":
    main(*sys.argv[1:])
