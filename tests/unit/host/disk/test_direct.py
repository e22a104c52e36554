"""What is read is what the disk has: damaged below the file system, seen or not seen above."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.disk import LoopDisk
from machineos.host.disk import direct, tools
from machineos.host.disk.direct import CHUNK

MARK = hashlib.sha512(b"in the middle").digest()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[LoopDisk]:
    made = LoopDisk(tmp_path / "disk", size=64 << 20)
    tools.make_filesystem("ext4", made.device, label="x")
    yield made
    made.close()


def read(path: Path) -> bytes:
    with direct.opened(path) as descriptor:
        return b"".join(direct.read_chunks(descriptor))


def write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


CONTENT = os.urandom(CHUNK) + MARK + os.urandom(5000)


@pytest.mark.system
def test_damage_below_the_file_system_is_seen(disk: LoopDisk) -> None:
    """The page cache, which every other reader asks, gives back what was written."""
    path = disk.mount("ext4") / "file"
    write(path, CONTENT)
    assert read(path) == CONTENT
    assert disk.damage(MARK) == 1
    assert path.read_bytes() == CONTENT, "this machine has no page cache: the test says nothing"
    found = read(path)
    assert len(found) == len(CONTENT)
    assert found != CONTENT
    assert path.read_bytes() == CONTENT


@pytest.mark.system
def test_a_file_system_that_ignores_the_flag_has_to_be_mounted_again(disk: LoopDisk) -> None:
    """ext4 with data=journal opens with O_DIRECT and reads from its cache all the same."""
    path = disk.mount("ext4", options="data=journal") / "file"
    write(path, CONTENT)
    disk.unmount()  # the journal holds a second copy
    disk.mount("ext4", options="data=journal")
    path.read_bytes()
    assert disk.damage(MARK) >= 1
    read(path)  # what was written, or what is there: that depends on the kernel
    disk.unmount()
    disk.mount("ext4", options="data=journal", read_only=True)
    assert read(path) != CONTENT


@pytest.mark.parametrize("size", [0, 1, 511, 512, 4096, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_every_length(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    write(tmp_path / "file", data)
    assert read(tmp_path / "file") == data
    with direct.opened(tmp_path / "file") as descriptor:
        lengths = [len(chunk) for chunk in direct.read_chunks(descriptor)]
    assert all(0 < length <= CHUNK for length in lengths)


def test_without_a_disk_behind_it_a_file_is_read_all_the_same() -> None:
    path = Path("/dev/shm") / f"machineos-test-{os.getpid()}"
    try:
        write(path, CONTENT)
        assert read(path) == CONTENT
    finally:
        path.unlink()


def test_a_file_that_is_cut_off_meanwhile_ends(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, bytes(3 * CHUNK))
    with direct.opened(path) as descriptor:
        chunks = direct.read_chunks(descriptor)
        next(chunks)
        os.truncate(path, CHUNK)
        assert list(chunks) == []


def test_a_link_is_refused_and_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    write(tmp_path / "file", b"x")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="symbolic"), direct.opened(tmp_path / "link"):
        pytest.fail("was opened")
    with direct.opened(tmp_path / "fifo") as descriptor:
        assert list(direct.read_chunks(descriptor)) == []
    with pytest.raises(FileNotFoundError), direct.opened(tmp_path / "none"):
        pytest.fail("was opened")


def test_descriptors_are_closed(tmp_path: Path) -> None:
    write(tmp_path / "file", b"x")
    with direct.opened(tmp_path / "file") as descriptor:
        assert os.get_inheritable(descriptor) is False
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(descriptor)


@pytest.mark.parametrize("at_end", [False, True])
def test_zeros_are_written_at_one_end_and_nowhere_else(tmp_path: Path, *, at_end: bool) -> None:
    size, edge = 5 * CHUNK, CHUNK + 4096
    write(tmp_path / "file", b"x" * size)
    direct.write_zeros(tmp_path / "file", edge, at_end=at_end)
    kept = b"x" * (size - edge)
    wanted = kept + bytes(edge) if at_end else bytes(edge) + kept
    assert (tmp_path / "file").read_bytes() == wanted
