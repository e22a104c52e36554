from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.core.size import parse_size, show_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("4096", 4096), ("4096B", 4096), ("1K", 1024), ("8GiB", 8 << 30),
        ("8Gi", 8 << 30),
        ("8G", 8 << 30), ("8GB", 8 * 10**9), ("512M", 512 << 20), ("1TB", 10**12),
        (" 2P ", 2 << 50),
    ],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "G", "-1", "+1", "1.5G", "1 G", "1g", "1iB", "1GBi", "0x10", "٣", "1_0", "9" * 19,
             "5000P"],
)  # fmt: skip
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError):
        parse_size(text)


@given(st.text(max_size=24))
def test_any_text(text: str) -> None:
    try:
        size = parse_size(text)
    except ValueError:
        return
    assert 0 <= size <= 1 << 62


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (8 << 30, "8.0 GiB"),
        (1 << 52, "4096.0 TiB"),
    ],
)
def test_show(size: int, text: str) -> None:
    assert show_size(size) == text


@given(st.integers(0, 1 << 62))
def test_what_is_shown_is_close(size: int) -> None:
    number, unit = show_size(size).split()
    shown = float(number) * {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}[unit]
    assert abs(shown - size) <= max(size * 0.051, 0.5)
