"""dm-crypt volumes; that the kernel opens one, and whose key it is, is tried in tests/vm."""

from __future__ import annotations

from pathlib import Path

import pytest

from machineos.core.secret import Secret
from machineos.errors import MissingError, ToolError
from machineos.host.kernel import dmcrypt
from machineos.host.kernel.crypttable import CryptVolume, key_of, parameters

UUID = "0b0f8dd4-37d6-4b15-8b9e-3f1d8a1c7a11"
VOLUME = CryptVolume(Path("/dev/machine-data/a"), "machine-volume-a", UUID, "aes-xts-plain64", 4096)
KEY = Secret(bytes(64))


def test_the_table_names_the_key_and_does_not_hold_it() -> None:
    assert parameters(VOLUME, "253:7", "machineos:a") == (
        "aes-xts-plain64 :64:logon:machineos:a 0 253:7 8 2 allow_discards sector_size:4096"
    )


def test_the_key_that_a_table_names() -> None:
    assert key_of(parameters(VOLUME, "253:7", "machineos:a")) == "machineos:a"
    for other in (
        "",
        "253:7",
        f"aes-xts-plain64 {'ab' * 64} 0 253:7 8",
        "aes :64:user:a 0 253:7 8",
    ):
        assert key_of(other) is None, other


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    volume = CryptVolume(tmp_path / "none", "x", UUID, "aes-xts-plain64", 4096)
    with pytest.raises(MissingError, match="none does not exist"):
        dmcrypt.open_volume(volume, KEY, folder=tmp_path)
    (tmp_path / "file").touch()
    other = CryptVolume(tmp_path / "file/x", "x", UUID, "aes-xts-plain64", 4096)
    with pytest.raises(ToolError, match="Not a directory"):
        dmcrypt.open_volume(other, KEY, folder=tmp_path)


def test_what_is_no_block_device(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(1 << 20))
    volume = CryptVolume(tmp_path / "file", "x", UUID, "aes-xts-plain64", 4096)
    with pytest.raises(ToolError, match=r"file: Inappropriate ioctl"):
        dmcrypt.open_volume(volume, KEY, folder=tmp_path)


def test_a_link_shows_the_device_and_replaces_what_was_there(tmp_path: Path) -> None:
    mapper = tmp_path / "dev/mapper"
    (tmp_path / "dev").mkdir()
    for name in ("dm-7", "dm-8"):
        (tmp_path / "dev" / name).touch()
        made = dmcrypt._link(tmp_path / "dev" / name, mapper / "x")
        assert made == mapper / "x"
        assert str(made.readlink()) == f"../{name}"
    (mapper / "folder").mkdir()
    with pytest.raises(ToolError, match="folder"):
        dmcrypt._link(tmp_path / "dev/dm-7", mapper / "folder")
