"""Partition tables are read back with ``sfdisk -J``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from machineos.core.command import Command
from machineos.core.run import run
from machineos.errors import ToolError
from machineos.host.disk.sfdisk import ESP, PartitionSpec, script, table_command
from machineos.host.disk.tools import write_table
from machineos.install.plan import LVM_TYPE, partition_plan
from waiting import PATIENCE


def test_script() -> None:
    parts = (PartitionSpec("esp", ESP, 512 << 20), PartitionSpec("rest", LVM_TYPE, 0))
    assert script(parts) == (
        "label: gpt\nfirst-lba: 2048\n"
        f'size=524288KiB, type={ESP}, name="esp"\ntype={LVM_TYPE}, name="rest"\n'
    )


def test_the_command() -> None:
    parts = (PartitionSpec("esp", ESP, 1 << 20),)
    argv = ("sfdisk", "--quiet", "--wipe", "always", "--wipe-partitions", "always", "/dev/vda")
    expected = Command(argv, 120.0, input=script(parts).encode())
    assert table_command(Path("/dev/vda"), parts) == expected


def test_the_type_of_the_esp() -> None:
    """UEFI 2.10, table 5.7."""
    assert ESP == "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"


@pytest.mark.tool("sfdisk")
@pytest.mark.parametrize("size", [8 * 10**9, 8 << 30, 100 * 10**9])
def test_the_plan_on_a_disk(tmp_path: Path, size: int) -> None:
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(size)
    plan = partition_plan(size, 200 << 20)
    write_table(image, plan)
    table = json.loads(run(["sfdisk", "-J", image], timeout=PATIENCE).text)["partitiontable"]
    assert table["label"] == "gpt"
    found = table["partitions"]
    assert [(p["name"], p["type"]) for p in found] == [(p.label, p.kind) for p in plan]
    at = 0
    for spec, part in zip(plan, found, strict=True):
        start, length = part["start"] * 512, part["size"] * 512
        assert start % (1 << 20) == 0
        assert start >= at
        assert length == spec.size
        at = start + length
    assert at <= size
    assert found[-1]["size"] * 512 >= 1 << 29


@pytest.mark.tool("sfdisk")
def test_an_old_table_is_replaced(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    write_table(image, [PartitionSpec(f"old{n}", LVM_TYPE, 4 << 20) for n in range(5)])
    write_table(image, [PartitionSpec("new", LVM_TYPE, 0)])
    table = json.loads(run(["sfdisk", "-J", image], timeout=PATIENCE).text)["partitiontable"]
    assert [p["name"] for p in table["partitions"]] == ["new"]


@pytest.mark.tool("sfdisk")
def test_a_disk_that_is_too_small(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(4 << 20)
    with pytest.raises(ToolError):
        write_table(image, [PartitionSpec("x", LVM_TYPE, 64 << 20)])
