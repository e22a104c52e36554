"""Looking into an image never leaves it; the contract of the host has the whole table."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from machineos.document.model.image import Sight
from machineos.document.model.limits import MAX_INSIDE
from machineos.service.act.rootfs import see_file, see_folder

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    root = tmp_path / "root"
    (root / "etc/below").mkdir(parents=True)
    (root / "etc/plain").write_text("plain")
    (root / "etc/link").symlink_to(secret)
    (root / "away").symlink_to(tmp_path)
    (root / "inside").symlink_to("etc")
    os.mkfifo(root / "etc/fifo")
    (root / "etc/big").write_bytes(b"x" * 101)
    return root


def test_a_plain_file_is_read(root: Path) -> None:
    assert see_file(root, "/etc/plain") == Sight(data=b"plain")
    assert see_file(root, "/etc//plain") == Sight(data=b"plain")
    assert MAX_INSIDE == 1 << 20


@pytest.mark.parametrize(
    ("path", "sight"),
    [
        ("/etc/absent", Sight("/etc/absent does not exist", absent=True)),
        ("/no/such", Sight("/no does not exist", absent=True)),
        ("/etc/link", Sight("/etc/link is a symbolic link")),
        ("/away/secret", Sight("/away/secret is not read: /away is a symbolic link")),
        ("/inside/plain", Sight("/inside/plain is not read: /inside is a symbolic link")),
        ("/etc/plain/x", Sight("/etc/plain/x is not read: /etc/plain is not a folder")),
        ("/etc/fifo", Sight("/etc/fifo is not a regular file")),
        ("/etc", Sight("/etc is not a regular file")),
        ("/", Sight("'/' is no path inside an image")),
        ("/etc/../../secret", Sight("'/etc/../../secret' is no path inside an image")),
        ("/./etc/plain", Sight("'/./etc/plain' is no path inside an image")),
        ("etc/plain", Sight("'etc/plain' is no path inside an image")),
        ("/etc/a\0b", Sight("'/etc/a\\x00b' is no path inside an image")),
        ("x" * 200, Sight(f"{'x' * 120!r} is no path inside an image")),
    ],
)
def test_files(root: Path, path: str, sight: Sight) -> None:
    assert see_file(root, path) == sight


def test_a_file_is_read_up_to_its_limit(root: Path) -> None:
    assert see_file(root, "/etc/big", limit=101).data == b"x" * 101
    assert see_file(root, "/etc/big", limit=100) == Sight("/etc/big is larger than 100 bytes")


@pytest.mark.parametrize(
    ("path", "sight"),
    [
        ("/", Sight()),
        ("/etc/below", Sight()),
        ("/etc/below/", Sight()),
        ("/inside", Sight("/inside is a symbolic link")),
        ("/inside/below", Sight("/inside is a symbolic link")),
        ("/etc/plain", Sight("/etc/plain is not a folder")),
        ("/etc/no/x", Sight("/etc/no does not exist", absent=True)),
        (f"/{'x' * 300}", Sight(f"/{'x' * 300}: File name too long")),
        ("/etc/..", Sight("'/etc/..' is no path inside an image")),
    ],
)
def test_folders(root: Path, path: str, sight: Sight) -> None:
    assert see_folder(root, path) == sight


def test_no_descriptor_is_left_open(root: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for path in ("/etc/plain", "/etc/fifo", "/etc/link", "/no/x", "/away/x", "/etc/plain/x"):
        see_file(root, path)
        see_folder(root, path)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
