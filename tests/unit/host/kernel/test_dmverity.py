"""The table line and what is refused; the kernel's own answers are in tests/vm."""

from __future__ import annotations

from pathlib import Path

import pytest

from changed import replace
from machineos.core.word import RootHash
from machineos.errors import ConflictError, MissingError, VerificationError
from machineos.host.kernel.devicemapper import Table
from machineos.host.kernel.dmverity import Volume, check_same, open_volume, parameters
from machineos.host.kernel.superblock import Superblock

HASH = RootHash("ab" * 32)
SALT = "cd" * 32
VOLUME = Volume(Path("/store/blob"), "x-verity", HASH, Superblock(2, SALT, "0" * 32), b"s")
# What the kernel of a guest printed for such a volume.
LINE = f"1 7:0 7:0 4096 4096 2 3 sha256 {HASH} {SALT} 2 root_hash_sig_key_desc machineos:x-verity"
OPEN = Table("verity", 8192, LINE)


def test_the_table_line_always_has_a_signature() -> None:
    assert parameters(VOLUME, "7:0", "machineos:x-verity") == LINE
    bare = replace(VOLUME, superblock=Superblock(2, "", "0" * 32))
    assert f" {HASH} - 2 root_hash_sig_key_desc k" in parameters(bare, "7:0", "k")


def test_the_same_volume_may_be_open() -> None:
    check_same(VOLUME, OPEN, "V")
    check_same(VOLUME, replace(OPEN, parameters=LINE.replace("7:0", "7:9")), "V")


@pytest.mark.parametrize(
    ("table", "what"),
    [
        (replace(OPEN, parameters=LINE.replace(HASH, "ff" * 32)), "another root hash"),
        (replace(OPEN, parameters=LINE.replace(SALT, "ff" * 32)), "another root hash"),
        (replace(OPEN, parameters=LINE.replace("4096 2 3", "4096 1 3")), "another root hash"),
        (replace(OPEN, parameters=LINE.replace("sha256", "sha1")), "another root hash"),
        (replace(OPEN, target="linear"), "another root hash"),
        (replace(OPEN, target="linear", parameters="7:0 0"), "another root hash"),
        (replace(OPEN, parameters=""), "another root hash"),
        (replace(OPEN, parameters=LINE.rsplit(" ", 3)[0]), "without a signature"),
        (replace(OPEN, parameters=LINE.rsplit(" ", 3)[0] + " 1 x"), "without a signature"),
    ],
)
def test_another_device_of_that_name(table: Table, what: str) -> None:
    with pytest.raises(ConflictError, match=what):
        check_same(VOLUME, table, "V")


@pytest.mark.parametrize("status", ["C", "", "V extra"])
def test_a_volume_in_which_the_kernel_found_a_fault(status: str) -> None:
    with pytest.raises(VerificationError, match="blocks that were changed"):
        check_same(VOLUME, OPEN, status)


@pytest.mark.root
def test_what_cannot_be_opened() -> None:
    """With a device mapper or without one."""
    with pytest.raises(MissingError, match=r"no device mapper|/store/blob does not exist"):
        open_volume(VOLUME)
