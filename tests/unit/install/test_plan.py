from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.errors import ConflictError, MissingError, SpaceError, UsageError
from machineos.host.disk.device import Disk
from machineos.host.disk.usage import Usage
from machineos.install.plan import (
    CONFIG_LABEL,
    DATA_LABEL,
    ESP_LABEL,
    GROUP,
    MINIMUM_DISK,
    MIRROR_LABEL,
    STORE_LABEL,
    choose_disk,
    partition_plan,
)

MIB, GIB = 1 << 20, 1 << 30
FREE = Usage((), (), (), dict.fromkeys(("sda", "sdb", "sdc", "vda", "vdb"), ""))
BUSY = Usage((), (), (), {"vda": "is used by a program, as a whole or a part of it", "vdb": ""})


def disk(
    name: str, size: int = 20 * GIB, *, read_only: bool = False, removable: bool = False
) -> Disk:
    return Disk(name, size, read_only, removable)


def test_the_only_suitable_disk() -> None:
    disks = (
        disk("sda", removable=True), disk("sdb", read_only=True), disk("sdc", size=GIB),
        disk("vda", size=MINIMUM_DISK),
    )  # fmt: skip
    assert choose_disk(disks, FREE).name == "vda"


@pytest.mark.parametrize("wanted", ["vdb", "/dev/vdb"])
def test_the_one_that_is_named(wanted: str) -> None:
    assert choose_disk((disk("vda"), disk("vdb", removable=True)), FREE, wanted).name == "vdb"


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
        choose_disk(disks, FREE, wanted)


@pytest.mark.parametrize(
    ("size", "esp", "config", "store", "data"),
    [
        (8 * 10**9, 512, 256, 3072, 3707),
        (8 * GIB, 512, 256, 3277, 4065),
        (32 * GIB, 512, 256, 13108, 18810),
        (33 * GIB, 1024, 264, 13517, 18905),
        (100 * GIB, 1024, 800, 40 * 1024, 59534),
        (1 << 42, 1024, 1024, 60 * 1024, 4130734),
    ],
)
def test_the_table(size: int, esp: int, config: int, store: int, data: int) -> None:
    sizes = {part.label: part.size // MIB for part in partition_plan(size, 200 * MIB)}
    assert sizes == {
        ESP_LABEL: esp, CONFIG_LABEL: config, STORE_LABEL: store, MIRROR_LABEL: 16,
        DATA_LABEL: data,
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
    esp, config, store, _, data = plan
    assert [part.label for part in plan] == [
        ESP_LABEL, CONFIG_LABEL, STORE_LABEL, MIRROR_LABEL, DATA_LABEL,
    ]  # fmt: skip
    assert all(part.size > 0 and part.size % MIB == 0 for part in plan)
    # 1 MiB in front, a second table at the end, and what a second disk may have less.
    assert 66 * MIB <= size - sum(part.size for part in plan) < 67 * MIB
    assert data.size >= GIB // 2
    assert store.size >= content * 3
    assert config.size >= 256 * MIB
    # Four images of the generic kernel with Intel's microcode, and 64 MiB.
    assert esp.size >= 4 * 49 * 10**6 + 64 * MIB
    assert esp.size >= GIB or size <= 32 * GIB


def test_the_least_disk() -> None:
    """8 GB as sellers count them."""
    assert MINIMUM_DISK == 8_000_000_000
    assert choose_disk((disk("vda", size=MINIMUM_DISK),), FREE).name == "vda"
    assert choose_disk((disk("vda", size=MINIMUM_DISK),), FREE, "vda").name == "vda"
    with pytest.raises(SpaceError) as caught:
        choose_disk((disk("vda", size=MINIMUM_DISK - 1),), FREE, "vda")
    assert caught.value.message == "disk vda has 7.5 GiB, 7.5 GiB are needed"
    with pytest.raises(MissingError):
        choose_disk((disk("vda", size=MINIMUM_DISK - 1),), FREE)


def test_a_disk_in_use_is_never_chosen() -> None:
    assert choose_disk((disk("vda"), disk("vdb")), BUSY).name == "vdb"
    with pytest.raises(ConflictError) as caught:
        choose_disk((disk("vda"), disk("vdb")), BUSY, "/dev/vda")
    assert caught.value.message == (
        "disk vda is in use: vda is used by a program, as a whole or a part of it"
    )
    with pytest.raises(MissingError) as missing:
        choose_disk((disk("vda"), disk("vdc")), BUSY)
    assert missing.value.message == (
        "no disk to install on: 7.5 GiB are needed; there are: "
        "vda (20.0 GiB, in use: vda is used by a program, as a whole or a part of it); "
        "vdc (20.0 GiB, in use: vdc was not looked at)"
    )


def test_what_is_said_of_disks() -> None:
    for disks, wanted, message, hint in (
        ((), "", "no disk to install on: 7.5 GiB are needed; there are: none", ""),
        (
            (disk("sda", GIB), disk("vda", 20 * GIB, read_only=True)),
            "",
            "no disk to install on: 7.5 GiB are needed; there are: sda (1.0 GiB); vda (20.0 GiB)",
            "",
        ),
        (
            (disk("vda"), disk("vdb")),
            "",
            "several disks could be installed on: vda (20.0 GiB); vdb (20.0 GiB)",
            "name one with --disk",
        ),
        ((disk("vda"),), "/dev/vdb", "this machine has no disk '/dev/vdb'", ""),
        ((disk("vda", read_only=True),), "vda", "disk vda is read-only", ""),
    ):
        with pytest.raises((MissingError, UsageError)) as caught:
            choose_disk(disks, FREE, wanted)
        assert (caught.value.message, caught.value.hint) == (message, hint)


def test_types_of_partitions() -> None:
    """Those of the predecessor for config and store, LVM's own for data: on disks in the field."""
    assert [(part.label, part.kind) for part in partition_plan(20 * GIB, 0)] == [
        ("esp", "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"),
        ("machine-config", "F79962B9-24E6-9948-9F94-E6BFDAD2771A"),
        ("machine-store", "F79962B9-24E6-9948-9F94-E6BFDAD2771B"),
        ("machine-mirror", "8DA63339-0007-60C0-C436-083AC8230908"),
        ("machine-data", "E6D6D379-F507-44C2-A23C-238F2A3DF928"),
    ]
    assert GROUP == "machine-data"


def test_half_a_gib_is_left_for_data() -> None:
    """2 MiB for the tables, 512 for the ESP, 256 for the configuration, 3 GiB for the store, 16 for
    a mirror and 64 that it may be smaller."""
    least = (2 + 512 + 256 + 3 * 1024 + 16 + 64 + 512) * MIB
    assert partition_plan(least, 0)
    with pytest.raises(SpaceError) as caught:
        partition_plan(least - 1, 0)
    assert caught.value.message == (
        "the disk has 4.3 GiB: after 3.0 GiB for images nothing useful is left for data"
    )
    assert caught.value.hint == "use a larger disk"


def test_sizes_are_whole_mebibytes() -> None:
    sizes = {part.label: part.size for part in partition_plan(100 * GIB + 128, 15 * GIB + 1)}
    assert sizes[CONFIG_LABEL] == 801 * MIB  # a hundred-and-twenty-eighth, rounded up
    assert sizes[STORE_LABEL] == 45 * GIB + MIB
