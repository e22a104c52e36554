"""What an image has to have inside, decided from what was seen there."""

from __future__ import annotations

import pytest

from machineos.document.model.image import Sight, User
from machineos.document.model.install import Mount
from machineos.document.rules.storage import KERNEL_FOLDERS, SCRATCH
from machineos.errors import ArchiveError, DocumentError
from machineos.service.plan.host import Inside
from machineos.service.plan.inside import (
    FILES,
    Findings,
    folders_to_see,
    judge,
)

PASSWD = Sight(data=b"app:x:1000:1001:a:/data:/bin/sh\n")
GROUP = Sight(data=b"web:x:33:\n")
HERE, LINK = Sight(), Sight("it is a link")
ABSENT = Sight("it does not exist", absent=True)


def mounts(*dests: str) -> tuple[Mount, ...]:
    """Return volumes to be mounted there."""
    return tuple(Mount(dest=dest, label="data") for dest in dests)


def findings(
    changes: dict[str, Sight] | None = None, *, dests: tuple[str, ...] = (), user: str = "app:web"
) -> Findings:
    """Judge an image that has everything, but for ``changes``."""
    folders = dict.fromkeys((*KERNEL_FOLDERS, *SCRATCH, "/data", "/tmp/below"), HERE)
    files = {"/etc/passwd": PASSWD, "/etc/group": GROUP, "/etc/resolv.conf": HERE}
    for path, sight in (changes or {}).items():
        (files if path in files else folders)[path] = sight
    inside = Inside(tuple(folders.items()), tuple(files.items()))
    return judge(inside, mounts=mounts(*dests), user=user, image="i")


def test_what_is_looked_at() -> None:
    assert FILES == ("/etc/passwd", "/etc/group", "/etc/resolv.conf")
    assert folders_to_see(mounts("/data", "/tmp", "/data")) == (
        "/proc", "/sys", "/dev", "/tmp", "/run", "/var/tmp", "/data",
    )  # fmt: skip


def test_a_whole_image() -> None:
    assert findings() == Findings(User(1000, 33, "/data"), SCRATCH, True)


@pytest.mark.parametrize("path", KERNEL_FOLDERS)
@pytest.mark.parametrize("sight", [LINK, ABSENT])
def test_folders_that_every_image_needs(path: str, sight: Sight) -> None:
    with pytest.raises(ArchiveError) as caught:
        findings({path: sight})
    assert str(caught.value) == f"image i: nothing can be mounted at {path}: {sight.problem}"
    assert caught.value.hint == "the image must have a real folder there"
    assert caught.value.rule == "image-folders"


@pytest.mark.parametrize("path", SCRATCH)
def test_scratch_may_be_absent_and_is_no_link(path: str) -> None:
    assert findings({path: ABSENT}).scratch == tuple(each for each in SCRATCH if each != path)
    with pytest.raises(ArchiveError) as caught:
        findings({path: LINK})
    assert str(caught.value) == f"image i: nothing can be mounted at {path}: it is a link"
    assert caught.value.rule == "image-folders"


def test_a_volume_needs_a_folder_unless_it_is_in_scratch() -> None:
    with pytest.raises(ArchiveError, match="mounted at /data: it does not exist"):
        findings({"/data": ABSENT}, dests=("/data",))
    assert findings({"/tmp/below": ABSENT}, dests=("/tmp/below",)).scratch == SCRATCH
    # Scratch that the image has not got is no place to make one in.
    with pytest.raises(ArchiveError, match="mounted at /tmp/below"):
        findings({"/tmp": ABSENT, "/tmp/below": ABSENT}, dests=("/tmp/below",))
    # What replaces scratch is not below it.
    assert findings(dests=("/tmp",)).scratch == SCRATCH
    with pytest.raises(ArchiveError, match="mounted at /data"):
        findings({"/data": LINK}, dests=("/tmp/below", "/data"))


def test_a_link_to_the_resolver_is_left_alone() -> None:
    assert findings({"/etc/resolv.conf": HERE}).resolves
    assert not findings({"/etc/resolv.conf": LINK}).resolves
    assert not findings({"/etc/resolv.conf": ABSENT}).resolves
    assert not findings({"/etc/resolv.conf": Sight(absent=True)}).resolves


@pytest.mark.parametrize("name", ["passwd", "group"])
def test_the_files_of_users(name: str) -> None:
    assert findings({f"/etc/{name}": ABSENT}, user="5:6").user.uid == 5
    with pytest.raises(ArchiveError) as caught:
        findings({f"/etc/{name}": LINK}, user="5:6")
    assert (str(caught.value), caught.value.rule) == ("image i: it is a link", "config-user-files")
    with pytest.raises(DocumentError, match=r"^image i: "):
        findings(user="nobody")
