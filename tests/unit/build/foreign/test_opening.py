"""Archives as users have them: packed, linked, down a pipe; and that nothing of them is left."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.archive import pack
from machineos.build.foreign.opening import opened
from machineos.build.recipe.member import Limits
from machineos.core.run import run
from machineos.errors import ArchiveError, DocumentError, MissingError, ToolError
from machineos.oci.model.documents import parse_manifest
from machineos.oci.model.reference import ImageSource
from machineos.oci.model.repository import Repository
from unit.build.foreign.test_archives import LAYERS, saved
from unit.build.images import layout, put
from waiting import PATIENCE


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def layers_of(repository: Repository, selector: str) -> list[bytes]:
    _, data = repository.manifest(selector)
    found = parse_manifest(data, name="x").layers
    return [repository.blob(layer, limit=1 << 20) for layer in found]


def read(text: str, work: Path, environ: dict[str, str] | None = None) -> list[bytes]:
    source = ImageSource.parse(text)
    with opened(source, work=work, environ=environ or {}) as repository:
        return layers_of(repository, source.selector)


def zstd(data: bytes) -> bytes:
    return run(["zstd", "-c", "-q"], input=data, timeout=PATIENCE).stdout


@pytest.mark.tool("zstd")
@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress, zstd])
def test_an_archive_that_is_packed_as_a_whole(
    tmp_path: Path, work: Path, compress: Callable[[bytes], bytes]
) -> None:
    path = saved(tmp_path / "x.tar", *LAYERS, tags=["web:2"])
    path.write_bytes(compress(path.read_bytes()))
    assert read(f"docker-archive:{path}:web:2", work) == list(LAYERS)
    put(layout(tmp_path / "l"), *LAYERS)
    path = pack(tmp_path / "l", tmp_path / "y.tar")
    path.write_bytes(compress(path.read_bytes()))
    assert read(f"oci-archive:{path}", work) == list(LAYERS)
    assert list(work.iterdir()) == []


def test_a_link_is_followed_and_a_pipe_is_read(tmp_path: Path, work: Path) -> None:
    path = saved(tmp_path / "x.tar", *LAYERS)
    (tmp_path / "link").symlink_to(path)
    assert read(f"docker-archive:{tmp_path / 'link'}", work) == list(LAYERS)
    reader, writer = os.pipe()

    def write() -> None:
        with os.fdopen(writer, "wb") as file:
            file.write(path.read_bytes())

    thread = threading.Thread(target=write)
    thread.start()
    assert read(f"docker-archive:/dev/fd/{reader}", work) == list(LAYERS)
    thread.join()
    os.close(reader)


def test_what_is_no_archive(tmp_path: Path, work: Path) -> None:
    with pytest.raises(MissingError, match="does not exist"):
        read(f"oci-archive:{tmp_path}/x", work)
    with pytest.raises(DocumentError, match="is neither a file nor a pipe") as caught:
        read(f"oci-archive:{tmp_path}", work)
    assert caught.value.hint == f"a folder is a layout: oci:{tmp_path}:TAG"
    (tmp_path / "x").write_bytes(b"PK\x03\x04" + bytes(512))
    with pytest.raises(ArchiveError, match="packed with zip"):
        read(f"docker-archive:{tmp_path}/x", work)
    with pytest.raises(MissingError, match="is no archive"):
        read(f"oci:{tmp_path}:a", work)


def test_how_much_a_packed_archive_may_hold(tmp_path: Path, work: Path) -> None:
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip.compress(bytes(1 << 20)))
    source = ImageSource.parse(f"docker-archive:{path}")
    with pytest.raises(ArchiveError, match="expands to more than 1048575 bytes"):
        with opened(source, work=work, environ={}, limits=Limits(expanded=(1 << 20) - 1)):
            pass
    assert list(work.iterdir()) == []


def test_an_interrupt_leaves_nothing(tmp_path: Path, work: Path) -> None:
    path = saved(tmp_path / "x.tar", *LAYERS)
    path.write_bytes(gzip.compress(path.read_bytes()))
    before = len(list(Path("/proc/self/fd").iterdir()))
    context = opened(ImageSource.parse(f"docker-archive:{path}"), work=work, environ={})
    context.__enter__()
    assert list(work.iterdir()) == []  # also while it is read: a kill leaves nothing
    interrupt = KeyboardInterrupt()
    assert not context.__exit__(KeyboardInterrupt, interrupt, None)
    assert list(work.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.root
@pytest.mark.tool("skopeo")
def test_what_the_containers_storage_of_this_machine_holds(tmp_path: Path, work: Path) -> None:
    """By podman or skopeo, whichever is there."""
    conf = tmp_path / "storage.conf"
    places = f'graphroot = "{tmp_path}/graph"\nrunroot = "{tmp_path}/run"\n'
    conf.write_text(f'[storage]\ndriver = "vfs"\n{places}')
    environ = {"CONTAINERS_STORAGE_CONF": str(conf), "HOME": str(tmp_path)}
    source = layout(tmp_path / "l")
    put(source, *LAYERS, tag="a")
    name = "containers-storage:localhost/web:2"
    run(
        ["skopeo", "--insecure-policy", "copy", "-q", f"oci:{source.path}:a", name],
        timeout=PATIENCE,
        env=environ,
    )
    assert read(name, work, environ) == list(LAYERS)
    with pytest.raises(ToolError):
        read("containers-storage:localhost/other:1", work, environ)
    assert list(work.iterdir()) == []
