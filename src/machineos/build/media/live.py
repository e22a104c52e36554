"""What is on an install medium besides the boot image: the installer's own manifest, and names.

The installer's root is the ordinary hostfs with the ordinary bootkit, published by the project into
the medium's layouts as ``machine/live``; the manifest to install, when there is one, lies beside.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from machineos.build.os.workshop import BOOTKIT_TAG, HOSTFS_TAG, bootkit_folder, hostfs_layout
from machineos.errors import UsageError
from machineos.oci.model.place import Place

NAME = "machine/live"
TAG = "1"
_SOURCE = """version: 1
product: {product}
update_type: complete
targets:
  - service_name: hostfs
    source: "oci:{hostfs}:{hostfs_tag}"
    version: "{version}"
    service_type: hostfs
    network: {{type: host}}
  - service_name: bootkit
    source: "oci:{bootkit}:{bootkit_tag}"
    version: "{version}"
    service_type: fs-only
    network: {{type: host}}
"""


@dataclass(frozen=True, slots=True)
class Placed:
    """A published manifest in a folder of layouts."""

    folder: Path
    name: str
    tag: str

    @property
    def reference(self) -> str:
        """Name and tag."""
        return f"{self.name}:{self.tag}"


def parse_placed(text: str) -> Placed | None:
    """Read ``oci:DIR:PATH:TAG``; None for nothing. Raises: DocumentError, UsageError."""
    if not text:
        return None
    place = Place.parse(text, plain_http=False)
    if place.at.folder is None:
        raise UsageError(f"{text[:200]!r} is not oci:DIR:PATH:TAG")
    return Placed(place.at.folder, place.name, place.tag)


def live_source(product: str, keyset: Path, variant: str) -> bytes:
    """Return the manifest.yaml of the installer's own root."""
    text = _SOURCE.format(
        product=product,
        hostfs=hostfs_layout(keyset, variant),
        hostfs_tag=HOSTFS_TAG,
        bootkit=bootkit_folder(keyset, variant) / "oci",
        bootkit_tag=BOOTKIT_TAG,
        version="1",
    )
    return text.encode()
