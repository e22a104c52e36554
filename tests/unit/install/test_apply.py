"""Parts of writing to a disk that need none; the whole is a test of a guest."""

from __future__ import annotations

from pathlib import Path

import pytest

from machineos.host.disk.blockdev import Disk
from machineos.install.apply import Job, copy_store
from machineos.install.stage import Staged, stage
from machineos.oci.layout.folder import LayoutRepository
from unit.document.conftest import NOW, PRODUCT, SOURCE, World, put_image

KEY = bytes(range(200, 232))


@pytest.fixture
def staged(world: World, tmp_path: Path) -> tuple[Staged, LayoutRepository]:
    put_image(LayoutRepository(world.images, writable=True), "single")
    world.publish(SOURCE.replace("{images}:zot", "{images}:single"))
    content = LayoutRepository(tmp_path / "staged", writable=True)
    found = stage(
        world.registry, "machine/install", "1.0.0", content,
        ca_pem=world.authority.pem, at=NOW, product=PRODUCT, room=1 << 30,
        say=lambda _text: None,
    )  # fmt: skip
    return found, content


@pytest.fixture
def job(staged: tuple[Staged, LayoutRepository], tmp_path: Path) -> Job:
    return Job(
        Disk("vda", 8 << 30, read_only=False, removable=False), (), *staged, KEY, tmp_path / "work"
    )


def test_the_key_is_not_shown(job: Job) -> None:
    """The predecessor logged it, in hex."""
    for text in (repr(job), str(job), f"{job}"):
        assert KEY.hex() not in text
        assert repr(KEY)[2:-1] not in text


def test_the_store_is_copied_whole(job: Job, tmp_path: Path) -> None:
    copy_store(job.content.path, tmp_path / "disk")
    source = {p.relative_to(job.content.path): p for p in job.content.path.rglob("*")}
    copied = {p.relative_to(tmp_path / "disk"): p for p in (tmp_path / "disk").rglob("*")}
    assert source.keys() == copied.keys()
    for name, path in source.items():
        if path.is_file():
            assert path.read_bytes() == copied[name].read_bytes(), name
