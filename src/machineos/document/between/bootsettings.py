"""What the builder baked into this initrd: it is inside the signed UKI, so it is trusted. Pure.

Files, all under ``/usr/lib/machineos/boot``: ``settings.json`` (this model), ``manifest-ca.pem``,
``manifest-ca-uki.der`` (the manifest CA's key, vouched for by the UKI key), ``sudi-ca.pem``,
``tpmpol-luks.pem``, ``tpmpol-admin.pem``, ``ipe-boot.p7s`` and ``ipe-closed.p7s`` (what may be
executed while the initrd is the root, and after it), ``apparmor.bin`` (compiled profiles, may be
empty), ``modules/`` (uncompressed).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from machineos.core.jsondoc import decode_json

Mode = Literal["run", "install", "provision"]
TpmKind = Literal["", "integrated", "discrete", "virtual"]
FOLDER = Path("/usr/lib/machineos/boot")
MODULES = FOLDER / "modules"
SETTINGS_FILE = "settings.json"
# In the order of the fields of Anchors.
ANCHOR_FILES = (
    "manifest-ca.pem", "manifest-ca-uki.der", "sudi-ca.pem", "tpmpol-luks.pem", "tpmpol-admin.pem",
    "ipe-boot.p7s", "ipe-closed.p7s", "apparmor.bin",
)  # fmt: skip


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``mode``: what this image is for. ``policy_version``: four digits, the version of this UKI.

    ``command_line`` is what the kernel must have been started with; ``modules`` are file names in
    the order of loading, always; ``drivers`` are (alias pattern, file names), loaded when a device
    is there, and ``watchdogs`` likewise before all others; ``filesystems`` are file names by type
    of mount(2). ``modules_volume`` is the root
    hash of the layer with all modules and firmware of this kernel. ``epoch`` (seconds) is when it
    was built: the clock is never before it. ``banner`` is shown at each boot, unless it is empty.
    ``tpm_kind`` is the only kind of TPM that is provisioned, empty for any.
    """

    version: Literal[1] = 1
    mode: Mode
    policy_version: str
    command_line: str
    kernel: str
    modules_volume: str
    epoch: int
    modules: tuple[str, ...]
    drivers: tuple[tuple[str, tuple[str, ...]], ...] = ()
    filesystems: dict[str, tuple[str, ...]] = {}
    watchdogs: tuple[tuple[str, tuple[str, ...]], ...] = ()
    banner: str = ""
    tpm_kind: TpmKind = ""


class Anchors(msgspec.Struct, frozen=True):
    """The certificates and keys that everything else is verified against."""

    manifest_ca: bytes
    manifest_ca_uki: bytes
    sudi_ca: bytes
    policy_key: bytes
    admin_policy_key: bytes
    ipe_boot: bytes
    ipe_closed: bytes
    apparmor: bytes


def parse_settings(data: bytes) -> Settings:
    """Return the settings. Raises: DocumentError."""
    return decode_json(data, Settings, name="boot settings")
