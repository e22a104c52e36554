from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.errors import MissingError, SpaceError, UsageError
from machineos.host.disk.device import Disk
from machineos.install.plan import (
    CONFIG_LABEL,
    DATA_LABEL,
    ESP_LABEL,
    MINIMUM_DISK,
    STORE_LABEL,
    choose_disk,
    partition_plan,
)

MIB, GIB = 1 << 20, 1 << 30


def disk(
    name: str, size: int = 20 * GIB, *, read_only: bool = False, removable: bool = False
) -> Disk:
    return Disk(name, size, read_only, removable)


def test_the_only_suitable_disk() -> None:
    disks = (
        disk("sda", removable=True), disk("sdb", read_only=True), disk("sdc", size=GIB),
        disk("vda", size=MINIMUM_DISK),
    )  # fmt: skip
    assert choose_disk(disks).name == "vda"


@pytest.mark.parametrize("wanted", ["vdb", "/dev/vdb"])
def test_the_one_that_is_named(wanted: str) -> None:
    assert choose_disk((disk("vda"), disk("vdb", removable=True)), wanted).name == "vdb"


@pytest.mark.parametrize(
    ("disks", "wanted", "error", "part"),
    [
        ((), "", MissingError, "there are: none"),
        ((disk("sdc", size=GIB),), "", MissingError, r"there are: sdc \(1.0 GiB\)"),
        ((disk("vda"), disk("vdb")), "", UsageError, "several disks"),
        ((disk("vda"),), "vdb", MissingError, "no disk 'vdb'"),
        ((disk("vda"),), "/dev/../vda", MissingError, "no disk"),
        ((disk("vda", size=GIB),), "vda", SpaceError, "vda has 1.0 GiB"),
        ((disk("vda", read_only=True),), "vda", UsageError, "read-only"),
    ],
)
def test_no_guess(disks: tuple[Disk, ...], wanted: str, error: type, part: str) -> None:
    with pytest.raises(error, match=part):
        choose_disk(disks, wanted)


@pytest.mark.parametrize(
    ("size", "config", "store"),
    [
        (8 * 10**9, 64, 3072),
        (8 * GIB, 64, 3277),
        (100 * GIB, 800, 40 * 1024),
        (1 << 42, 1024, 60 * 1024),
    ],
)
def test_the_table(size: int, config: int, store: int) -> None:
    sizes = {part.label: part.size for part in partition_plan(size, 200 * MIB)}
    assert sizes == {
        ESP_LABEL: 512 * MIB, CONFIG_LABEL: config * MIB, STORE_LABEL: store * MIB, DATA_LABEL: 0,
    }  # fmt: skip


def test_large_images_take_from_the_data() -> None:
    sizes = {part.label: part.size for part in partition_plan(8 * 10**9, 2 * GIB)}
    assert sizes[STORE_LABEL] == 6 * GIB


@pytest.mark.parametrize(("size", "content"), [(8 * 10**9, 3 * GIB), (4 * GIB, 0), (0, 0)])
def test_no_space(size: int, content: int) -> None:
    with pytest.raises(SpaceError, match="nothing useful is left"):
        partition_plan(size, content)


@given(st.integers(0, 1 << 45), st.integers(0, 1 << 40))
def test_any_disk(size: int, content: int) -> None:
    """Aligned, never more than the disk, room for three generations, something left for data."""
    try:
        plan = partition_plan(size, content)
    except SpaceError:
        assert size < MINIMUM_DISK or content * 3 > size // 2
        return
    *fixed, data = plan
    assert [part.label for part in plan] == [ESP_LABEL, CONFIG_LABEL, STORE_LABEL, DATA_LABEL]
    assert data.size == 0
    assert all(part.size > 0 and part.size % MIB == 0 for part in fixed)
    # 1 MiB in front, and a second table at the end of the disk.
    assert size - sum(part.size for part in fixed) - 2 * MIB >= GIB // 2
    assert fixed[2].size >= content * 3
    assert fixed[1].size >= 64 * MIB
