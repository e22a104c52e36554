"""What the builder baked into this initrd: it is inside the signed UKI, so it is trusted.

Files, all under ``/usr/lib/machineos/boot``: ``settings.json`` (this model), ``manifest-ca.pem``,
``manifest-ca-uki.der`` (the manifest CA's key, vouched for by the UKI key), ``sudi-ca.pem``,
``tpmpol-luks.pem``, ``tpmpol-admin.pem``, ``ipe-policy.p7s``, ``modules/`` (uncompressed).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from machineos.core.jsondoc import decode_json

Mode = Literal["run", "install", "provision"]
FOLDER = Path("/usr/lib/machineos/boot")


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``mode``: what this image is for. ``policy_version``: four digits, that of this UKI.

    ``command_line`` is what the kernel must have been started with; ``modules`` are file names in
    the order of loading, always; ``drivers`` are (alias pattern, file names), loaded when a device
    is there; ``filesystems``: type of mount(2) -> file names. ``epoch`` (seconds) is when it was
    built: the clock is never before it.
    """

    version: Literal[1] = 1
    mode: Mode
    policy_version: str
    command_line: str
    kernel: str
    epoch: int
    modules: tuple[str, ...]
    drivers: tuple[tuple[str, tuple[str, ...]], ...] = ()
    filesystems: dict[str, tuple[str, ...]] = {}
    banner: str = ""


@dataclass(frozen=True, slots=True)
class Anchors:
    """The certificates and keys that everything else is verified against."""

    manifest_ca: bytes
    manifest_ca_uki: bytes
    sudi_ca: bytes
    policy_key: bytes
    admin_policy_key: bytes
    ipe_policy: bytes


def load_settings(folder: Path = FOLDER) -> Settings:
    """Return the settings. Raises: DocumentError."""
    return decode_json((folder / "settings.json").read_bytes(), Settings, name="boot settings")


def load_anchors(folder: Path = FOLDER) -> Anchors:
    """Return the trust anchors."""
    return Anchors(
        manifest_ca=(folder / "manifest-ca.pem").read_bytes(),
        manifest_ca_uki=(folder / "manifest-ca-uki.der").read_bytes(),
        sudi_ca=(folder / "sudi-ca.pem").read_bytes(),
        policy_key=(folder / "tpmpol-luks.pem").read_bytes(),
        admin_policy_key=(folder / "tpmpol-admin.pem").read_bytes(),
        ipe_policy=(folder / "ipe-policy.p7s").read_bytes(),
    )
