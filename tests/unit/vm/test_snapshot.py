"""Names of snapshots cannot carry another monitor command."""

from __future__ import annotations

import pytest

from machineos.errors import UsageError
from machineos.vm.snapshot import check_tag


@pytest.mark.parametrize("tag", ["", "1", "a b", "a\nquit", "A", "a" * 33, "-a"])
def test_refused(tag: str) -> None:
    with pytest.raises(UsageError):
        check_tag(tag)


def test_good() -> None:
    check_tag("booted-1")
