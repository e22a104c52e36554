"""``machineos.json`` on an install medium: which manifests its OCI layouts hold.

Written by the builder, read by the initrd and the installer. It only points: what it names is
verified like anything else.
"""

from __future__ import annotations

import msgspec

from machineos.core.jsondoc import decode_json
from machineos.document.rules.product import KNOWN_VERSION
from machineos.errors import DocumentError

INDEX_FILE = "machineos.json"
LABEL = "OCI-BOOT"
LAYOUTS = "oci"
VERSION = 1
# The names under which the initrd leaves for the installer, in root's keyring, the configuration
# key, that of the volumes' blocks, and the host's CA.
INSTALL_KEY = "machineos:configuration-key"
INTEGRITY_KEY = "machineos:integrity-key"
TPM_KIND_FILE = "tpm-kind"  # in /run/machineos: one word of ``trust.seal.tpmkind.Kind``
CA_KEY = "machineos:host-ca-key"
CA_CERTIFICATE = "machineos:host-ca-certificate"
CA_SIGNATURE = "machineos:host-ca-signature"


class MediumIndex(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``live`` names the manifest of the installer's own root, ``install`` the one to install
    (both ``path:tag``); ``install`` is empty when it comes from a registry."""

    version: int
    live: str
    install: str = ""

    def to_bytes(self) -> bytes:
        """Return the file's content."""
        return msgspec.json.encode(self) + b"\n"


def parse_index(data: bytes) -> MediumIndex:
    """Read the file. Raises: DocumentError."""
    index = decode_json(data, MediumIndex, name=INDEX_FILE)
    faults = KNOWN_VERSION.faults(index.version)
    if faults:
        raise DocumentError(INDEX_FILE, faults)
    return index
