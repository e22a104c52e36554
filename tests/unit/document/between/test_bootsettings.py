from __future__ import annotations

import msgspec
import pytest

from machineos.document.between.bootsettings import ANCHOR_FILES, Anchors, Settings, parse_settings
from machineos.errors import DocumentError

SETTINGS = Settings(
    mode="install", policy_version="0002", command_line="a b", kernel="6.12.1", epoch=7,
    modules_volume="a" * 64,
    modules=("a.ko", "b.ko"), drivers=(("virtio:d2v*", ("virtio_blk.ko",)),), banner="TEST",
)  # fmt: skip


def test_what_is_written_is_read() -> None:
    assert parse_settings(msgspec.json.encode(SETTINGS)) == SETTINGS


@pytest.mark.parametrize(
    ("key", "value"),
    [("mode", "shell"), ("version", 2), ("epoch", "7"), ("modules", "a.ko"), ("more", 1),
     ("drivers", [["x"]])],
)  # fmt: skip
def test_faults(key: str, value: object) -> None:
    document = {**msgspec.to_builtins(SETTINGS), key: value}
    with pytest.raises(DocumentError, match="boot settings"):
        parse_settings(msgspec.json.encode(document))


def test_every_anchor_is_its_own_file() -> None:
    """The order of the names is that of the fields: a swap would trust the wrong thing."""
    names = ("manifest-ca.pem", "manifest-ca-uki.der", "sudi-ca.pem", "tpmpol-luks.pem",
             "tpmpol-admin.pem", "ipe-boot.p7s", "ipe-closed.p7s", "apparmor.bin")  # fmt: skip
    assert names == ANCHOR_FILES
    anchors = Anchors(*(name.encode() for name in ANCHOR_FILES))
    assert anchors == Anchors(
        manifest_ca=b"manifest-ca.pem", manifest_ca_uki=b"manifest-ca-uki.der",
        sudi_ca=b"sudi-ca.pem", policy_key=b"tpmpol-luks.pem",
        admin_policy_key=b"tpmpol-admin.pem", ipe_boot=b"ipe-boot.p7s",
        ipe_closed=b"ipe-closed.p7s", apparmor=b"apparmor.bin",
    )  # fmt: skip
