from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from machineos.document.between.bootsettings import Anchors, Settings, load_anchors, load_settings
from machineos.errors import DocumentError

SETTINGS = Settings(
    mode="install", policy_version="0002", command_line="a b", kernel="6.12.1", epoch=7,
    modules=("a.ko", "b.ko"), drivers=(("virtio:d2v*", ("virtio_blk.ko",)),), banner="TEST",
)  # fmt: skip


def test_what_is_written_is_read(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_bytes(msgspec.json.encode(SETTINGS))
    assert load_settings(tmp_path) == SETTINGS


@pytest.mark.parametrize(
    ("key", "value"),
    [("mode", "shell"), ("version", 2), ("epoch", "7"), ("modules", "a.ko"), ("more", 1),
     ("drivers", [["x"]])],
)  # fmt: skip
def test_faults(tmp_path: Path, key: str, value: object) -> None:
    document = {**msgspec.to_builtins(SETTINGS), key: value}
    (tmp_path / "settings.json").write_bytes(msgspec.json.encode(document))
    with pytest.raises(DocumentError, match="boot settings"):
        load_settings(tmp_path)


def test_every_anchor_is_its_own_file(tmp_path: Path) -> None:
    names = ("manifest-ca.pem", "manifest-ca-uki.der", "sudi-ca.pem", "tpmpol-luks.pem",
             "tpmpol-admin.pem", "ipe-policy.p7s")  # fmt: skip
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    assert load_anchors(tmp_path) == Anchors(*(name.encode() for name in names))
