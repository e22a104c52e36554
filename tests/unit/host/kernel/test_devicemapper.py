"""The shapes of dm-ioctl.h; the ioctls themselves are tried in tests/vm, where there is a kernel
with a device mapper."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.errors import MissingError, ToolError
from machineos.host.kernel.devicemapper import Table, _decode, _encode, _node, opened


def test_the_target_as_the_kernel_wants_it() -> None:
    data = _encode(Table("verity", 8192, "1 7:0"))
    assert struct.unpack_from("<QQiI16s", data) == (0, 16, 0, 0, b"verity".ljust(16, b"\0"))
    assert data[40:] == b"1 7:0\0\0\0"


@given(
    st.integers(0, 1 << 40),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200),
)
def test_what_was_written_is_read(sectors: int, text: str) -> None:
    table = Table("verity", sectors * 512, text)
    assert _decode(_encode(table)) == table


def test_a_table_that_does_not_start_at_the_start() -> None:
    data = bytearray(_encode(Table("verity", 8192, "x")))
    data[0] = 8
    with pytest.raises(ToolError, match="starts at sector 8"):
        _decode(bytes(data))


def test_device_numbers() -> None:
    assert str(_node(253 << 8 | 7)) == "/dev/dm-7"
    assert str(_node(253 << 8 | 0x34 | 0x12 << 20)) == f"/dev/dm-{0x1234}"


def test_no_control_device(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no device mapper"), opened(tmp_path / "none"):
        pass
    with pytest.raises(ToolError, match="directory"), opened(tmp_path):
        pass


def test_a_control_device_that_is_none(tmp_path: Path) -> None:
    """Whatever else is there answers no ioctl, and the error says which device."""
    path = tmp_path / "control"
    path.touch()
    with opened(path) as mapper:
        with pytest.raises(ToolError, match="device x: "):
            mapper.status("x")
        with pytest.raises(ToolError, match="device x cannot be removed"):
            mapper.remove("x")
        with pytest.raises(ToolError, match="device x cannot be renamed"):
            mapper.rename("x", "y")
        for name in ("", "x" * 128):
            with pytest.raises(ToolError, match="cannot be the name"):
                mapper.find(name)
