"""Names that come from elsewhere stay below the folder that they are joined to."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.core.paths import safe_join

ROOT = Path("/root/of/it")


@given(st.text(max_size=300))
def test_a_name_stays_below_or_is_refused(name: str) -> None:
    try:
        path = safe_join(ROOT, name)
    except ValueError:
        return
    assert path.parent == ROOT
    assert path.name == name


@pytest.mark.parametrize("name", ["a", "...", ".a", "a b", "\\", "a" * 255])
def test_any_other_name_is_one(name: str) -> None:
    assert safe_join(ROOT, name) == Path(f"/root/of/it/{name}")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\0", "a" * 256])
def test_what_is_no_name_is_refused_and_said(name: str) -> None:
    with pytest.raises(ValueError) as caught:
        safe_join(ROOT, name)
    assert str(caught.value) == f"{name[:80]!r} is not a file name"
