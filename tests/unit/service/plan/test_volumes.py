"""The steps to a volume: what exists is used as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from machineos.document.between.handover import Volume
from machineos.document.model.install import Mount
from machineos.document.model.names import Label, Unfinished
from machineos.errors import MissingError
from machineos.host.kernel.flags import Flag
from machineos.service.plan import steps, volumes
from machineos.service.plan.host import Persistent
from machineos.service.plan.volumes import Seen
from unit.service.bed import FOLDERS

KEPT = Volume("kept", persistent=True, size=30)
LABEL, UNFINISHED = Label("kept"), Unfinished("kept+new")
MEMORY = Volume("memory", persistent=False, size=5)
FLAGS = Flag.NOSUID | Flag.NODEV | Flag.NOEXEC
OWN = {"uid": 166536, "gid": 165569}
FOLDER = steps.OwnFolder(Path("/data/kept/volume"), 166536, 165569)
MOUNTED = (
    steps.MakeFolder(Path("/data"), 0o711),
    steps.MakeFolder(Path("/data/kept"), 0o711),
    steps.Mount("/dev/mapper/machine-volume-kept", Path("/data/kept"), "ext4", FLAGS, "discard"),
    FOLDER,
)


def test_volumes_are_wanted_once_each() -> None:
    mounts = [Mount(dest=dest, label=label) for dest, label in (("/a", "kept"), ("/b", "kept"))]
    assert volumes.wanted(mounts, [MEMORY, KEPT]) == (KEPT,)
    mounts.append(Mount(dest="/c", label="memory"))
    assert volumes.wanted(mounts, [MEMORY, KEPT]) == (KEPT, MEMORY)
    assert volumes.wanted([], [KEPT]) == ()
    with pytest.raises(MissingError) as caught:
        volumes.wanted(mounts, [KEPT])
    assert str(caught.value) == "storage memory is not defined by any manifest"


@pytest.mark.parametrize(
    ("seen", "missing"),
    [
        (Seen(KEPT, mounted=False), True),
        (Seen(KEPT, mounted=False, device=True), False),
        (Seen(KEPT, mounted=True), False),
        (Seen(MEMORY, mounted=False), False),
    ],
)
def test_what_is_missing(seen: Seen, missing: bool) -> None:
    assert seen.missing is missing


def test_a_mounted_volume_only_needs_its_folder() -> None:
    assert volumes.making(Seen(KEPT, mounted=True), FOLDERS, (), **OWN) == (FOLDER,)


def test_a_volume_with_a_device_is_mounted_and_never_made() -> None:
    seen = Seen(KEPT, mounted=False, device=True)
    kept = (Persistent("kept"), Persistent("kept+new", unfinished=True))
    assert volumes.making(seen, FOLDERS, kept, **OWN) == MOUNTED


def test_a_new_volume_gets_its_name_last() -> None:
    assert volumes.making(Seen(KEPT, mounted=False), FOLDERS, (Persistent("other"),), **OWN) == (
        steps.CreateVolume(UNFINISHED, 30 << 20),
        steps.FormatVolume(UNFINISHED, LABEL),
        steps.FinishVolume(UNFINISHED),
        steps.RenameVolume(UNFINISHED, LABEL),
        steps.OpenVolume(LABEL),
        *MOUNTED,
    )


def test_an_unfinished_volume_is_begun_again() -> None:
    kept = (Persistent("kept+new", unfinished=True),)
    found = volumes.making(Seen(KEPT, mounted=False), FOLDERS, kept, **OWN)
    assert found[:2] == (
        steps.RemoveVolume(UNFINISHED),
        steps.CreateVolume(UNFINISHED, 30 << 20),
    )


def test_only_the_tag_says_that_a_volume_is_unfinished() -> None:
    """A name says nothing: what has no tag is whole, and only waits for its name."""
    kept = (Persistent("kept+new"),)
    found = volumes.making(Seen(KEPT, mounted=False), FOLDERS, kept, **OWN)
    assert found == (steps.RenameVolume(UNFINISHED, LABEL), steps.OpenVolume(LABEL), *MOUNTED)


@pytest.mark.parametrize("other", ["kept.new", "kept-new", "KEPT+new", "kept+new+new", "new"])
@pytest.mark.parametrize("unfinished", [False, True])
def test_a_volume_of_another_name_is_never_touched(other: str, unfinished: bool) -> None:
    """Whatever its tag says: ``kept.new`` is a label like any other."""
    kept = (Persistent(other, unfinished=unfinished),)
    for step in volumes.making(Seen(KEPT, mounted=False), FOLDERS, kept, **OWN):
        assert not isinstance(step, steps.RemoveVolume)
        assert getattr(step, "name", UNFINISHED) == UNFINISHED


@pytest.mark.parametrize("unfinished", [False, True])
def test_a_volume_that_is_not_open_is_not_made_again(unfinished: bool) -> None:
    """To open it is all that is tried, which fails when the initrd did not."""
    kept = (Persistent("kept", unfinished=unfinished),)
    found = volumes.making(Seen(KEPT, mounted=False), FOLDERS, kept, **OWN)
    assert found == (steps.OpenVolume(LABEL), *MOUNTED)


def test_memory_has_its_size_and_no_device() -> None:
    target = Path("/data/memory")
    assert volumes.making(Seen(MEMORY, mounted=False), FOLDERS, (), **OWN) == (
        steps.MakeFolder(Path("/data"), 0o711),
        steps.MakeFolder(target, 0o711),
        steps.Mount("tmpfs", target, "tmpfs", FLAGS, "size=5m,nr_inodes=1280,mode=0711"),
        steps.OwnFolder(target / "volume", 166536, 165569),
    )
    assert volumes.source(FOLDERS, Label("memory")) == target / "volume"


def test_a_label_of_a_file_system_is_cut_to_what_ext4_takes() -> None:
    volume = Volume("a" * 17, persistent=True, size=1)
    found = volumes.making(Seen(volume, mounted=False), FOLDERS, (), **OWN)
    assert steps.FormatVolume(Unfinished("a" * 17 + "+new"), Label("a" * 16)) in found
