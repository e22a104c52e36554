"""How much of everything a document may have: one page, so that nobody has to look for a bound.

What is larger is refused before it costs anything. A bound on what comes over the network is where
it is read (``oci.registry.wire.Limits``, ``oci.graph.walk``).
"""

from __future__ import annotations

# install.json, manifest.yaml, the system file: bytes of the whole document.
MAX_INSTALL = 1 << 20
MAX_SOURCE = 1 << 20
MAX_SYSTEM = 1 << 20

# In one document, and in what a machine runs.
MAX_TARGETS = 512
MAX_STORAGE = 512
MAX_PORTS = 4096
MAX_MANIFESTS = 64

# One value.
MAX_PORT = 65535
MAX_DEST = 255
MAX_VOLUME = 1 << 34  # MiB: 16 PiB

# An image: its manifest and its configuration in bytes, what its configuration asks for.
MAX_IMAGE_MANIFEST = 4 << 20
MAX_CONFIG = 1 << 20
MAX_WORDS = 4096
MAX_USER = 65535  # the highest id inside a container
MAX_INSIDE = 1 << 20  # bytes of a file of the image that is read

# What refers to a document or an image: how many are looked at, bytes of each.
MAX_REFERRERS = 128
MAX_SMALL = 64 << 10

# The first id of the host that is given to a group (``core.idrange`` has the bounds).
FIRST_ID = 100_000
