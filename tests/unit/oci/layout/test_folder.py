"""Layout folders: what is on the disk, and what happens when it is not what it should be."""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING

import pytest

from machineos.core import run
from machineos.core.digest import Digest
from machineos.errors import (
    DigestError,
    DocumentError,
    MachineOSError,
    MissingError,
    SpaceError,
    UsageError,
)
from machineos.host.kernel.mount import Flag, mount, unmount
from machineos.oci.graph.copy import copy_graph
from machineos.oci.layout.folder import LayoutRegistry, LayoutRepository
from machineos.oci.model.documents import MANIFEST, REF_NAME, Descriptor
from machineos.oci.model.reference import ImageSource
from machineos.oci.model.repository import Ranges
from unit.oci.samples import LAYER, put_artifact, put_bytes, put_image, put_index

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def layout(tmp_path: Path) -> LayoutRepository:
    return LayoutRepository(tmp_path / "layout", writable=True)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_part_of_a_blob(layout: LayoutRepository) -> None:
    """Nothing is hashed for it; that it is a file of the right size is seen all the same."""
    assert isinstance(layout, Ranges)
    blob = put_bytes(layout, b"0123456789")
    assert layout.blob_range(blob, 0, 4) == b"0123"
    assert layout.blob_range(blob, 8, 4) == b"89"
    assert layout.blob_range(blob, 10, 4) == b""
    path = layout.blob_path(blob.digest)
    path.chmod(0o644)
    path.write_bytes(b"x123456789")
    assert layout.blob_range(blob, 0, 2) == b"x1"
    path.write_bytes(b"012345678")
    with pytest.raises(DigestError, match="9 bytes, expected 10"):
        layout.blob_range(blob, 0, 4)
    path.unlink()
    with pytest.raises(MissingError, match="is not there"):
        layout.blob_range(blob, 0, 4)
    path.symlink_to("/etc/hostname")
    with pytest.raises(DigestError, match="is not a regular file"):
        layout.blob_range(blob, 0, 4)


def test_repositories_are_folders_as_zot_has_them(tmp_path: Path) -> None:
    image = put_image(
        LayoutRegistry(tmp_path, writable=True).repository("machine/install"), "1.0.0"
    )
    folder = tmp_path / "machine/install"
    assert json.loads((folder / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((folder / "index.json").read_text())
    assert index["manifests"] == [
        {
            "mediaType": MANIFEST,
            "digest": str(image.root.digest),
            "size": image.root.size,
            "annotations": {REF_NAME: "1.0.0"},
        }
    ]
    names = {path.name for path in (folder / "blobs/sha256").iterdir()}
    assert len(names) == 3
    assert image.root.digest.hex in names


def test_storing_twice_leaves_identical_files(layout: LayoutRepository) -> None:
    def publish() -> None:
        image = put_image(layout, "1.0")
        put_artifact(layout, image.root, b"signature")
        put_index(layout, "multi", "amd64", "arm64")

    publish()
    before = files(layout.path)
    publish()
    assert files(layout.path) == before


def test_an_untagged_entry_becomes_the_tagged_one(layout: LayoutRepository) -> None:
    image = put_image(layout, None)
    put_image(layout, "1.0")
    assert [entry.annotations for entry in layout.entries()] == [{REF_NAME: "1.0"}]
    assert layout.resolve("1.0") == image.root


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def write(number: int) -> None:
        try:
            repository = LayoutRepository(tmp_path / "layout", writable=True)
            for part in range(5):
                put_image(repository, f"t{number}-{part}", (b"%d %d" % (number, part),))
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(LayoutRepository(tmp_path / "layout").tags()) == 30


def test_reading_creates_nothing(tmp_path: Path) -> None:
    repository = LayoutRepository(tmp_path / "absent")
    with pytest.raises(MissingError, match="not an OCI image layout"):
        repository.resolve("1.0")
    with pytest.raises(UsageError):
        put_bytes(repository, b"x")
    assert repository.tags() == ()
    assert not (tmp_path / "absent").exists()


def test_missing_tags_are_named(layout: LayoutRepository) -> None:
    put_image(layout, "1.0")
    with pytest.raises(MissingError) as caught:
        layout.resolve("2.0")
    assert "1.0" in caught.value.hint


def test_where_there_is_no_tag_a_digest_is_a_name(layout: LayoutRepository) -> None:
    image = put_image(layout, None)
    with pytest.raises(MissingError) as caught:
        layout.resolve("2.0")
    assert caught.value.hint == (
        f"it has no tags: name an image by its digest, as in @{image.root.digest}"
    )
    index = layout.path / "index.json"
    index.write_text('{"schemaVersion":2,"manifests":null}')
    with pytest.raises(MissingError) as caught:
        layout.resolve("2.0")
    assert caught.value.hint == "it is empty"


def test_names_of_other_tools_are_names(layout: LayoutRepository) -> None:
    """skopeo and buildah write whole references there."""
    image = put_image(layout, "1.0")
    index = layout.path / "index.json"
    index.write_text(index.read_text().replace('"1.0"', '"registry.example/library/x:1"'))
    for text in (
        f"oci:{layout.path}:registry.example/library/x:1",
        f"oci:{layout.path}@{image.root.digest}",
    ):
        source = ImageSource.parse(text)
        assert source.folder == layout.path
        assert layout.resolve(source.selector) == image.root


def test_what_looks_like_a_digest_is_no_name(layout: LayoutRepository) -> None:
    """Whoever wrote the layout could else give another image for the one that was signed."""
    good, evil = put_image(layout, "good"), put_image(layout, "evil", (b"evil",))
    index = layout.path / "index.json"
    index.write_text(index.read_text().replace('"evil"', f'"{good.root.digest}"'))
    assert layout.resolve(str(good.root.digest)).digest == good.root.digest
    assert layout.manifest(str(good.root.digest))[0].digest == good.root.digest
    assert evil.root.digest != good.root.digest


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("oci-layout", "{}"),
        ("oci-layout", '{"imageLayoutVersion":"2.0.0"}'),
        ("oci-layout", "x" * 10_000),
        ("index.json", ""),
        ("index.json", "[]"),
        ("index.json", '{"schemaVersion":2,"manifests":[],"manifests":[]}'),
        ("index.json", '{"schemaVersion":2,"manifests":[{"digest":"sha256:../../x","size":1}]}'),
        ("index.json", '{"schemaVersion":2,"manifests":[],"layers":[]}'),
    ],
)
def test_broken_layouts_are_refused(layout: LayoutRepository, name: str, text: str) -> None:
    put_image(layout, "1.0")
    (layout.path / name).write_text(text)
    before = files(layout.path)
    with pytest.raises(DocumentError):
        layout.resolve("1.0")
    with pytest.raises(DocumentError):
        put_image(layout, "1.0")
    assert files(layout.path) == before


def test_a_manifest_that_no_entry_names_is_checked_too(layout: LayoutRepository) -> None:
    """The platforms of an index are reached by digest only."""
    blob = put_bytes(layout, b'{"schemaVersion":2,"manifests":[]}')
    put_image(layout, "1.0")
    assert layout.resolve(str(blob.digest)).digest == blob.digest
    layout.blob_path(blob.digest).write_bytes(b'{"schemaVersion":2,"manifests": []}')
    with pytest.raises(DigestError):
        layout.resolve(str(blob.digest))


def test_a_tag_given_to_two_manifests_is_refused(layout: LayoutRepository) -> None:
    put_image(layout, "a", (b"a",))
    put_image(layout, "b", (b"b",))
    path = layout.path / "index.json"
    path.write_text(path.read_text().replace(f'"{REF_NAME}":"b"', f'"{REF_NAME}":"a"'))
    with pytest.raises(DocumentError, match="two manifests"):
        layout.resolve("a")


# -- blobs that are something else than a file with the right bytes


@pytest.mark.parametrize("kind", ["fifo", "link", "folder", "device", "short", "long", "flipped"])
def test_what_is_no_blob_is_refused(layout: LayoutRepository, tmp_path: Path, kind: str) -> None:
    blob = put_bytes(layout, b"the right bytes")
    path = layout.blob_path(blob.digest)
    path.unlink()
    (tmp_path / "outside").write_bytes(b"the right bytes")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(tmp_path / "outside")
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        wrong = {
            "short": b"the right byte",
            "long": b"the right bytes!",
            "flipped": b"the right bytez",
        }
        path.write_bytes(wrong[kind])
    with pytest.raises(DigestError):
        layout.blob(blob, limit=100)
    with pytest.raises(DigestError), layout.open_blob(blob) as chunks:
        list(chunks)


def test_a_blob_swapped_while_it_is_read_changes_nothing(layout: LayoutRepository) -> None:
    data = bytes(range(256)) * (1 << 14)
    blob = put_bytes(layout, data)
    path = layout.blob_path(blob.digest)
    with layout.open_blob(blob) as chunks:
        got = [next(chunks)]
        other = path.with_name("other")
        other.write_bytes(bytes(len(data)))
        other.replace(path)
        got += chunks
    assert b"".join(got) == data


def test_a_blob_written_to_while_it_is_read_is_noticed(
    layout: LayoutRepository, tmp_path: Path
) -> None:
    data = bytes(range(256)) * (1 << 14)
    blob = put_bytes(layout, data)
    sink = LayoutRepository(tmp_path / "sink", writable=True)
    with layout.open_blob(blob) as chunks:

        def meddle() -> Iterator[bytes]:
            yield next(chunks)
            with layout.blob_path(blob.digest).open("r+b") as file:
                file.seek(-1, os.SEEK_END)
                file.write(b"X")
            yield from chunks

        with pytest.raises(DigestError):
            sink.put_blob(blob, meddle())
    assert not sink.has_blob(blob.digest)


@pytest.mark.parametrize("real", [1, 1 << 31, (1 << 31) + 1, (1 << 32) + 1, (1 << 33) + 1])
@pytest.mark.parametrize("told", [0, 1, 1 << 31, (1 << 32) + 1])
def test_sizes_are_not_cut_to_32_bits(layout: LayoutRepository, real: int, told: int) -> None:
    if real == told:
        return
    promised = Descriptor(media_type=LAYER, digest=Digest.of(b"\0"), size=told)
    sparse(layout.blob_path(promised.digest), real)
    with pytest.raises(DigestError, match=f"{real} bytes, expected {told}"):
        layout.blob(promised, limit=1 << 40)


def sparse(path: Path, size: int, last: bytes = b"") -> None:
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.truncate(size - len(last))
        file.seek(0, os.SEEK_END)
        file.write(last)


def test_a_failed_write_leaves_no_file(layout: LayoutRepository) -> None:
    blob = Descriptor(media_type=LAYER, digest=Digest.of(b"x"), size=1)

    def broken() -> Iterator[bytes]:
        yield b""
        raise OSError("cable pulled")

    with pytest.raises(OSError, match="cable"):
        layout.put_blob(blob, broken())
    assert list(layout.blob_path(blob.digest).parent.iterdir()) == []


@pytest.mark.system
@pytest.mark.parametrize("inodes", [1, 2, 3, 4, 5, 6, 20, 24, 25, 26, 27])
def test_a_full_disk_at_every_step(tmp_path: Path, inodes: int) -> None:
    """Each file and folder takes an inode; the last ones find none. With room it goes on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount("tmpfs", disk, "tmpfs", Flag.NOSUID | Flag.NODEV, f"nr_inodes={inodes}")
    try:
        layout = LayoutRepository(disk / "layout", writable=True)
        layers = tuple(b"%d" % number for number in range(20))
        with pytest.raises(SpaceError, match="no space left"):
            put_image(layout, "1.0", layers)
        assert not list(disk.rglob(".*"))
        mount("tmpfs", disk, "tmpfs", Flag.REMOUNT | Flag.NOSUID | Flag.NODEV, "nr_inodes=1000")
        image = put_image(layout, "1.0", (b"the last",))
        assert layout.resolve("1.0") == image.root
    finally:
        unmount(disk)


def test_a_damaged_referrer_hides_no_other(layout: LayoutRepository) -> None:
    image = put_image(layout)
    good = put_artifact(layout, image.root, b"good")
    bad = put_artifact(layout, image.root, b"bad")
    layout.blob_path(bad.digest).write_bytes(b"garbage")
    assert [entry.digest for entry in layout.referrers(image.root.digest)] == [good.digest]


# -- other tools


def skopeo(*args: str) -> bytes:
    return run.run(["skopeo", "--insecure-policy", *args], timeout=60).stdout


@pytest.mark.tool("skopeo")
@pytest.mark.works("reads our layouts, and we read its own", "skopeo")
def test_skopeo_reads_and_writes_our_layouts(layout: LayoutRepository, tmp_path: Path) -> None:
    image = put_image(layout, "1.0", (b"one", b"two"))
    there, back = tmp_path / "there", LayoutRepository(tmp_path / "back", writable=True)
    skopeo("copy", "--preserve-digests", f"oci:{layout.path}:1.0", f"oci:{there}:1.0")
    assert copy_graph(LayoutRepository(there), back, "1.0", tag="1.0") == image.root
    raw = skopeo("inspect", "--raw", f"oci:{back.path}:1.0")
    assert raw == layout.manifest("1.0")[1]


@pytest.mark.tool("skopeo")
@pytest.mark.tool("docker-registry")
@pytest.mark.works("pulls what we push", "skopeo")
def test_skopeo_pulls_what_we_push(
    layout: LayoutRepository, tmp_path: Path, docker_registry: str
) -> None:
    from machineos.oci.registry.client import HttpRegistry

    root = put_index(layout, "1.0", "amd64", "arm64")
    with HttpRegistry(docker_registry) as registry:
        copy_graph(layout, registry.repository("interop/x"), "1.0", tag="1.0")
        skopeo(
            "copy",
            "--all",
            "--preserve-digests",
            "--src-tls-verify=false",
            f"docker://{docker_registry}/interop/x:1.0",
            f"oci:{tmp_path / 'pulled'}:1.0",
        )
        assert LayoutRepository(tmp_path / "pulled").resolve("1.0").digest == root.digest
        skopeo(
            "copy",
            "--all",
            "--preserve-digests",
            "--dest-tls-verify=false",
            f"oci:{layout.path}:1.0",
            f"docker://{docker_registry}/interop/y:1.0",
        )
        assert registry.repository("interop/y").resolve("1.0") == root


def test_a_missing_blob_says_so(layout: LayoutRepository) -> None:
    with pytest.raises(MachineOSError, match="is not there"):
        layout.blob(Descriptor(media_type=LAYER, digest=Digest.of(b"x"), size=1), limit=1)


def test_a_blob_of_its_name_and_size_is_held(layout: LayoutRepository) -> None:
    """On a developer's machine; ``verify`` reads it. A machine's store says more with a check."""
    blob = put_bytes(layout, b"right")
    path = layout.blob_path(blob.digest)
    assert layout.holds_blob(blob)
    path.write_bytes(b"wrong")
    assert layout.holds_blob(blob)
    for other in (b"wron", b"wrong!", b""):
        path.write_bytes(other)
        assert not layout.holds_blob(blob)
    path.unlink()
    assert not layout.holds_blob(blob)
    path.mkdir()
    assert not layout.holds_blob(blob)


def test_a_check_decides_what_is_held_and_what_is_stored_again(tmp_path: Path) -> None:
    plain = LayoutRepository(tmp_path / "layout", writable=True)
    blob = put_bytes(plain, b"right")
    asked: list[tuple[Path, Descriptor]] = []

    def check(path: Path, descriptor: Descriptor) -> bool:
        asked.append((path, descriptor))
        return path.read_bytes() == b"right"

    layout = LayoutRepository(tmp_path / "layout", writable=True, check=check)
    path = layout.blob_path(blob.digest)
    assert layout.holds_blob(blob)
    path.write_bytes(b"wrong")
    assert not layout.holds_blob(blob)
    layout.put_blob(blob, [b"right"])
    assert path.read_bytes() == b"right"
    assert asked == [(path, blob)] * 3
    path.unlink()
    assert not layout.holds_blob(blob)
    assert len(asked) == 3
