from __future__ import annotations

from pathlib import Path

from machineos.core.secret import Secret
from machineos.state.volumes.steps import TABLE, FormatConfig, MakeFilesystem, Mount, UnlockConfig


def test_fault_points() -> None:
    assert MakeFilesystem("ext4", Path("/dev/vda3"), "store").fault_point == "filesystem:store"
    made = FormatConfig(Secret(b"k"), Path("/dev/vda2"), "uuid")
    assert made.fault_point == "configuration-volume"
    assert Mount(Path("/dev/vda3"), Path("/m"), "ext4").fault_point == ""


def test_what_is_on_a_partition_is_lost_only_once_it_is_divided() -> None:
    assert MakeFilesystem.after == FormatConfig.after == {TABLE} == {"partition table"}
    assert Mount.after == frozenset()


def test_mounts_are_for_writing_unless_they_say_so() -> None:
    assert not Mount(Path("/dev/vda3"), Path("/m"), "ext4").read_only


def test_no_step_shows_its_key() -> None:
    key = Secret(b"do not show this")
    for step in (
        FormatConfig(key, Path("/dev/vda2"), "uuid"),
        UnlockConfig(key, Path("/dev/vda2")),
    ):
        assert "do not show" not in repr(step)
