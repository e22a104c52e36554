"""Microcode of processors: a file for each vendor, in an archive that is not compressed."""

from __future__ import annotations

from pathlib import Path

import pytest

from machineos.build.os.microcode import is_microcode, microcode_archive
from machineos.errors import MissingError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, data in (
        ("amd-ucode/microcode_amd.bin", b"AAA"),
        ("amd-ucode/microcode_amd_fam17h.bin", b"BBB"),
        ("amd-ucode/README", b"no"),
        ("intel-ucode/06-55-04", b"III"),
    ):
        path = tmp_path / "usr/lib/firmware" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path


def test_the_files_of_a_vendor_are_one_behind_the_other(root: Path, tmp_path: Path) -> None:
    amd = microcode_archive(root, "amd", work=tmp_path, epoch=7)
    assert b"kernel/x86/microcode/AuthenticAMD.bin" in amd
    assert b"AAABBB" in amd
    assert b"no" not in amd
    assert amd == microcode_archive(root, "amd", work=tmp_path, epoch=7)
    assert b"GenuineIntel" not in amd
    both = microcode_archive(root, "intel", work=tmp_path, epoch=7)
    assert b"kernel/x86/microcode/GenuineIntel.bin" in both
    assert b"III" in both
    assert b"kernel/x86/microcode/AuthenticAMD.bin" in both


def test_none_is_nothing_and_a_tree_without_any_is_told(tmp_path: Path) -> None:
    assert microcode_archive(tmp_path, "none", work=tmp_path, epoch=7) == b""
    amd = tmp_path / "usr/lib/firmware/amd-ucode/microcode_amd.bin"
    amd.parent.mkdir(parents=True)
    amd.write_bytes(b"AAA")
    with pytest.raises(MissingError, match="has no microcode for processors of intel"):
        microcode_archive(tmp_path, "intel", work=tmp_path, epoch=7)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("microcode_amd.bin", True), ("06-55-04", True), ("06-8f-04.initramfs", True),
     ("microcode_amd.bin.asc", False), ("LICENSE.amd-ucode", False)],
)  # fmt: skip
def test_which_files_are_for_processors(name: str, wanted: bool) -> None:
    assert is_microcode(name) is wanted
