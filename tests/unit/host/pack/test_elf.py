from __future__ import annotations

import sys
from pathlib import Path

import pytest

from machineos.core.command import Command
from machineos.errors import MissingError, ToolError
from machineos.host.pack import elf
from machineos.host.pack.tools import libraries_of

READELF = """\
  INTERP         0x000318 0x0000000000000318 0x0000000000000318 0x00001c 0x00001c R   0x1
      [Requesting program interpreter: /lib64/ld-linux-x86-64.so.2]
Dynamic section at offset 0x6d90 contains 26 entries:
  Tag        Type                         Name/Value
 0x0000000000000001 (NEEDED)             Shared library: [libcryptsetup.so.12]
 0x0000000000000001 (NEEDED)             Shared library: [libc.so.6]
 0x0000000000000001 (NEEDED)             Shared library: [libc.so.6]
 0x0000000000000001 (NEEDED)             Shared library: [../evil.so]
 0x000000000000000e (SONAME)             Library soname: [libnot.so.1]
"""


def test_parse() -> None:
    assert elf.parse_needed(READELF) == ("libcryptsetup.so.12", "libc.so.6", "ld-linux-x86-64.so.2")
    assert elf.parse_needed("There is no dynamic section in this file.\n") == ()


def test_the_command() -> None:
    assert elf.needed_command(Path("p")) == Command(("readelf", "-dlW", "p"), 30.0)


@pytest.mark.tool("readelf")
def test_a_real_program() -> None:
    names = {path.name for path in libraries_of(Path("/"), [Path(sys.executable).resolve()])}
    assert "libc.so.6" in names
    assert any(name.startswith("ld-linux") for name in names)


@pytest.mark.tool("readelf")
def test_what_is_missing_or_no_program(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="is needed but not in"):
        libraries_of(tmp_path, [Path(sys.executable).resolve()])
    with pytest.raises(ToolError):
        libraries_of(Path("/"), [tmp_path / "none"])
