from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict, Unpack

import msgspec
import pytest

from machineos.build.recipe.conversion import Conversion
from machineos.build.recipe.convert import convert_image
from machineos.build.recipe.filesystem import make_layer
from machineos.build.recipe.member import Limits, Policy
from machineos.build.recipe.mountpoints import ALWAYS
from machineos.core.clock import Clock, SystemClock
from machineos.core.jsondoc import parse_json
from machineos.document.model.install import Mount
from machineos.errors import (
    ArchiveError,
    DigestError,
    DocumentError,
    MachineOSError,
    MissingError,
    SpaceError,
    UsageError,
    VerificationError,
)
from machineos.host.kernel.mount import Flag, mount, unmount
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.atomfs import (
    NEW_ROOT_HASH,
    OLD_ROOT_HASH,
    FilesystemKind,
    parse_layer_type,
    root_hash_of,
)
from machineos.oci.model.documents import Descriptor, Manifest, parse_manifest
from unit.build.images import EPOCH, TAR, layout, put, put_index, unpack
from unit.build.tarmaker import END, folder, hardlink, member, pax, symlink
from vectors.clock import FixedClock

pytestmark = [pytest.mark.root, pytest.mark.tool("mksquashfs"), pytest.mark.tool("veritysetup")]
LOWER = folder("bin/") + member("bin/x", b"1", mode=0o4755) + member("old", b"1") + END
NOTE = pax(SCHILY__xattr__user__note="text")
UPPER = member(".wh.old") + member("new", b"2", uid=1000) + END


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Options(TypedDict, total=False):
    """What a conversion may be given besides."""

    platform: tuple[str, str]
    kind: FilesystemKind
    limits: Limits
    policy: Policy
    progress: Callable[[str], None]
    mounts: tuple[Mount, ...] | None


def convert(
    source: LayoutRepository,
    folder: Path,
    tag: str = "t",
    clock: Clock | None = None,
    **options: Unpack[Options],
) -> Descriptor:
    work = folder / "work"
    work.mkdir(exist_ok=True)
    try:
        conversion = Conversion(work, epoch=EPOCH, clock=clock or SystemClock(), **options)
        return convert_image(source, tag, layout(folder / "out"), conversion, tag="t")
    finally:
        assert list(work.iterdir()) == []


def manifest_of(repository: LayoutRepository, descriptor: Descriptor) -> Manifest:
    return parse_manifest(repository.manifest(str(descriptor.digest))[1], name="m")


def unpacked(folder: Path, descriptor: Descriptor) -> Path:
    repository = LayoutRepository(folder / "out")
    layer = manifest_of(repository, descriptor).layers[0]
    unpack(repository.blob_path(layer.digest), folder / "tree")
    return folder / "tree"


def refused(
    source: LayoutRepository,
    folder: Path,
    error: type[MachineOSError],
    message: str,
    **options: Unpack[Options],
) -> None:
    with pytest.raises(error, match=message):
        convert(source, folder, **options)
    assert not (folder / "out").exists()


@pytest.mark.tool("zstd")
@pytest.mark.parametrize("suffix", ["", "+gzip", "+zstd"])
def test_layers_become_one_and_the_configuration_stays(tmp_path: Path, suffix: str) -> None:
    source = layout(tmp_path / "in")
    put(source, LOWER, UPPER, suffix=suffix)
    said: list[str] = []
    descriptor = convert(source, tmp_path, progress=said.append)
    # Which image it is, whatever its tag is called.
    assert {line.partition(": ")[0] for line in said} == {f"{source.name}:t"}
    out = LayoutRepository(tmp_path / "out")
    assert out.resolve("t") == descriptor
    manifest = manifest_of(out, descriptor)
    (layer,) = manifest.layers
    assert parse_layer_type(layer.media_type) is not None
    assert layer.annotations[OLD_ROOT_HASH] == layer.annotations[NEW_ROOT_HASH]
    config = parse_json(out.blob(manifest.config, limit=1 << 20), name="config")
    assert config["config"] == {"Entrypoint": ["/bin/x"], "Env": ["A=b"], "User": "7"}
    assert config["rootfs"] == {"type": "layers", "diff_ids": [str(layer.digest)]}
    assert len(config["history"]) == 1
    assert config["created"] == "2023-11-14T22:13:20Z"
    tree = unpacked(tmp_path, descriptor)
    places = {path.strip("/").split("/")[0] for path in ALWAYS}
    assert set(names(tree)) == {"bin", "new", *places}
    assert (tree / "new").stat().st_uid == 1000
    assert (tree / "new").stat().st_mtime == 1000
    assert (tree / "bin/x").stat().st_mode & 0o7777 == 0o755
    assert any("set-user-id bit from bin/x" in line for line in said)


def test_same_image_same_digest_whatever_the_compression(tmp_path: Path) -> None:
    results = set()
    for suffix in ("", "+gzip"):
        (tmp_path / f"d{suffix}").mkdir()
        source = layout(tmp_path / f"d{suffix}" / "in")
        put(source, LOWER, UPPER, suffix=suffix)
        results.add(convert(source, tmp_path / f"d{suffix}").digest)
    assert len(results) == 1


def test_an_image_that_will_be_run_knows_its_user(tmp_path: Path) -> None:
    source = layout(tmp_path / "in")
    app = {"Entrypoint": ["/bin/x"], "User": "app:web"}
    passwd = folder("etc/") + member("etc/passwd", b"app:x:1000:1001:a:/srv:/bin/sh\n")
    put(source, LOWER, passwd + END, config=app)
    fault = "config.User: 'app:web' is not a user and group of the image"
    message = f"^image oci:.*/in:t: 1 fault\n  {fault}$"
    refused(source, tmp_path, DocumentError, message, mounts=())
    # What will only be mounted has no user.
    assert (unpacked(tmp_path, convert(source, tmp_path)) / "etc/passwd").exists()
    (tmp_path / "whole").mkdir()
    put(source, LOWER, passwd + END, member("etc/group", b"web:x:33:\n") + END, config=app)
    convert(source, tmp_path / "whole", mounts=())
    (tmp_path / "root").mkdir()
    put(source, LOWER, config={"Entrypoint": ["/bin/x"]})
    convert(source, tmp_path / "root", mounts=())


def test_folders_and_files_of_users_are_looked_at_before_the_user(tmp_path: Path) -> None:
    source = layout(tmp_path / "in")
    app = {"Entrypoint": ["/bin/x"], "User": "app"}
    data = (Mount(dest="/data", label="data"),)
    put(source, symlink("etc", "data") + END, config=app)
    message = "image oci:.*/in:t: nothing can be mounted at /data: /data does not exist"
    refused(source, tmp_path, ArchiveError, message, mounts=data)
    put(source, folder("data/") + symlink("etc", "data") + END, config=app)
    message = "image oci:.*/in:t: /etc/passwd is not read: /etc is a symbolic link"
    refused(source, tmp_path, ArchiveError, message, mounts=data)


def test_docker_media_types_are_read(tmp_path: Path) -> None:
    source = layout(tmp_path / "in")
    kind = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    put(source, LOWER, suffix="+gzip", media_type=kind)
    assert (unpacked(tmp_path, convert(source, tmp_path)) / "old").read_text() == "1"


def test_an_index_gives_the_image_of_the_platform(tmp_path: Path) -> None:
    source = layout(tmp_path / "in")
    here, there = put(source, LOWER, tag=None), put(source, UPPER, tag=None)
    put_index(source, {"linux/arm64": there, "linux/amd64": here}, "t")
    assert (unpacked(tmp_path, convert(source, tmp_path)) / "old").exists()
    (tmp_path / "x").mkdir()
    refused(
        source, tmp_path / "x", MissingError, "not there for linux/mips", platform=("linux", "mips")
    )


def test_a_converted_image_stays_as_it_is(tmp_path: Path) -> None:
    source = layout(tmp_path / "in")
    put(source, LOWER)
    first = convert(source, tmp_path)
    (tmp_path / "again").mkdir()
    second = convert(LayoutRepository(tmp_path / "out"), tmp_path / "again")
    assert second == first
    manifest = manifest_of(LayoutRepository(tmp_path / "again" / "out"), second)
    assert LayoutRepository(tmp_path / "again" / "out").has_blob(manifest.layers[0].digest)


def verity_image(tmp_path: Path, source: LayoutRepository, **annotations: str) -> None:
    """An image whose one layer is damaged in its hash tree, but has the digest of its manifest."""
    from machineos.core.digest import Digest
    from machineos.oci.model.documents import MANIFEST

    tree = tmp_path / "layer-tree"
    tree.mkdir()
    noise = b"".join(Digest.of(b"%d" % i).hex.encode() for i in range(2000))
    (tree / "f").write_bytes(noise)
    layer = make_layer(tree, tmp_path / "layer", epoch=EPOCH)
    data = bytearray(layer.path.read_bytes())
    if not annotations:
        data[layer.data_size + 4096] ^= 1
    entry = msgspec.structs.replace(layer.descriptor, digest=Digest.of(bytes(data)))
    if annotations:
        entry = msgspec.structs.replace(entry, annotations=annotations)
    source.put_blob(entry, (bytes(data),))
    plain = put(source, LOWER, tag=None)
    config = manifest_of(source, plain).config
    manifest = Manifest(media_type=MANIFEST, config=config, layers=(entry,))
    source.put_manifest(manifest.to_bytes(), media_type=MANIFEST, tag="t")


def test_a_verity_layer_that_does_not_match_is_refused(tmp_path: Path) -> None:
    source = layout(tmp_path / "in")
    verity_image(tmp_path, source)
    refused(source, tmp_path, VerificationError, "does not match its root hash")


@pytest.mark.parametrize(
    ("value", "message"), [("0" * 64, "not a verity root hash"), ("f" * 64, "does not match")]
)
def test_a_wrong_root_hash_is_refused(tmp_path: Path, value: str, message: str) -> None:
    source = layout(tmp_path / "in")
    verity_image(tmp_path, source, **{OLD_ROOT_HASH: value})
    refused(source, tmp_path, VerificationError, message)


def test_a_missing_root_hash_is_refused(tmp_path: Path) -> None:
    source = layout(tmp_path / "in")
    verity_image(tmp_path, source, other="x")
    refused(source, tmp_path, VerificationError, "carries no verity root hash")


def stacked(tmp_path: Path, **wrong: str) -> LayoutRepository:
    """An image of two verity layers; ``wrong`` are annotations of the upper one."""
    first, second = layout(tmp_path / "a"), layout(tmp_path / "b")
    put(first, LOWER)
    put(second, folder("bin/") + member("bin/y", b"2") + END)
    both = layout(tmp_path / "in")
    entries = []
    for index, source in enumerate((first, second)):
        (tmp_path / str(index)).mkdir()
        made = convert(source, tmp_path / str(index))
        out = LayoutRepository(tmp_path / str(index) / "out")
        entry = manifest_of(out, made).layers[0]
        root_hash_of(entry)
        if index == 1:
            entry = msgspec.structs.replace(entry, annotations={**entry.annotations, **wrong})
        both.put_blob(entry, (out.blob(entry, limit=1 << 24),))
        entries.append(entry)
    plain = put(both, LOWER, UPPER, tag=None)
    manifest = manifest_of(both, plain)
    manifest = msgspec.structs.replace(manifest, layers=tuple(entries))
    both.put_manifest(manifest.to_bytes(), media_type=manifest.media_type, tag="t")
    return both


def test_several_verity_layers_become_one(tmp_path: Path) -> None:
    tree = unpacked(tmp_path, convert(stacked(tmp_path), tmp_path))
    assert names(tree / "bin") == ["x", "y"]


def test_one_of_several_with_a_wrong_root_hash_is_refused(tmp_path: Path) -> None:
    """The digest of the blob is right: what is unpacked has to match what was signed for it."""
    both = stacked(tmp_path, **{OLD_ROOT_HASH: "f" * 64, NEW_ROOT_HASH: "f" * 64})
    refused(both, tmp_path, VerificationError, "does not match its root hash")


def test_attacks_name_layer_and_member(tmp_path: Path) -> None:
    source = layout(tmp_path / "in")
    put(source, LOWER, symlink("d", "/etc") + member("d/../passwd") + END, suffix="+gzip")
    refused(source, tmp_path, ArchiveError, r"layer sha256:[0-9a-f]{64}: member 'd/\.\./passwd'")


def test_links_of_a_lower_layer_are_followed_inside_the_image(tmp_path: Path) -> None:
    """Debian's /bin is a link, and layers of many builders write through it."""
    source = layout(tmp_path / "in")
    lower = folder("usr/") + folder("usr/bin/") + symlink("bin", "usr/bin") + END
    put(source, lower, member("bin/tool", b"1") + symlink("a", "bin") + hardlink("b", "a") + END)
    tree = unpacked(tmp_path, convert(source, tmp_path))
    assert (tree / "usr/bin/tool").read_bytes() == b"1"
    assert (tree / "b").readlink() == Path("bin")


@pytest.mark.parametrize("suffix", ["", "+gzip", "+zstd"])
@pytest.mark.parametrize("kind", ["", "gzip", "zstd"])
def test_the_bytes_say_how_a_layer_is_compressed(tmp_path: Path, suffix: str, kind: str) -> None:
    """Whatever its media type says: builders take one for the other."""
    source = layout(tmp_path / "in")
    put(source, LOWER, suffix=f"+{kind}" if kind else "", media_type=TAR + suffix)
    assert names(unpacked(tmp_path, convert(source, tmp_path)))


@pytest.mark.parametrize("suffix", ["+gzip", "+zstd"])
def test_bombs_are_cut_off(tmp_path: Path, suffix: str) -> None:
    source = layout(tmp_path / "in")
    put(source, member("zeros", bytes(8 << 20)) + END, suffix=suffix)
    limits = Limits(expanded=1 << 20)
    refused(source, tmp_path, ArchiveError, "expands to more than 1048576", limits=limits)


@pytest.mark.system
@pytest.mark.parametrize(
    ("full", "room"), [("work", 600), ("work", 1500), ("out", 600)], ids=["read", "pack", "store"]
)
def test_a_full_disk_leaves_nothing(tmp_path: Path, full: str, room: int) -> None:
    source = layout(tmp_path / "in")
    noise = random.Random(1).randbytes(1 << 20)
    put(source, member("noise", noise) + END)
    disk = tmp_path / full
    disk.mkdir()
    mount("tmpfs", disk, "tmpfs", Flag.NOSUID | Flag.NODEV, f"size={room}k")
    try:
        with pytest.raises(SpaceError, match="no space left on the device"):
            convert(source, tmp_path)
        for folder in (disk, tmp_path / "out/blobs"):
            assert not [path for path in folder.rglob("*") if path.is_file()]
    finally:
        unmount(disk)


def test_set_user_id_can_be_refused_or_kept(tmp_path: Path) -> None:
    source = layout(tmp_path / "in")
    put(source, LOWER)
    refused(source, tmp_path, ArchiveError, "'bin/x' is set-user-id", policy=Policy("refuse"))
    tree = unpacked(tmp_path, convert(source, tmp_path, policy=Policy("keep")))
    assert (tree / "bin/x").stat().st_mode & 0o7777 == 0o4755


def test_a_layer_that_unpacks_to_something_else_is_refused(tmp_path: Path) -> None:
    source = layout(tmp_path / "in")
    put(source, LOWER, diff_ids=["sha256:" + "1" * 64])
    refused(source, tmp_path, DigestError, "its configuration says sha256:1111")
    put(source, LOWER, diff_ids=[])
    refused(source, tmp_path, DocumentError, "has 0 entries for 1 layers")


def test_unknown_layers_are_refused(tmp_path: Path) -> None:
    source = layout(tmp_path / "in")
    put(source, LOWER, media_type=TAR + "+brotli")
    refused(source, tmp_path, DocumentError, r"tar\+brotli' cannot be unpacked")


@pytest.mark.parametrize("damage", [b"\x1f\x8b\x08garbage", b"short"])
def test_a_damaged_gzip_layer_is_refused(tmp_path: Path, damage: bytes) -> None:
    source = layout(tmp_path / "in")
    put(source, damage, media_type=TAR + "+gzip")
    refused(source, tmp_path, ArchiveError, "layer sha256:")


def test_a_blob_changed_on_the_disk_is_refused(tmp_path: Path) -> None:
    source = layout(tmp_path / "in")
    manifest = manifest_of(source, put(source, member("f", b"content") + END))
    path = source.blob_path(manifest.layers[0].digest)
    path.write_bytes(path.read_bytes().replace(b"content", b"CONTENT"))
    refused(source, tmp_path, DigestError, "digest is sha256:")


def picture(tree: Path) -> dict[str, tuple[Any, ...]]:
    """All that a tree tells: owners, modes, times, attributes, links and contents."""
    found: dict[str, tuple[Any, ...]] = {}
    inodes: dict[int, str] = {}
    for path in (tree, *sorted(tree.rglob("*"))):
        status, name = path.lstat(), str(path.relative_to(tree))
        first = inodes.setdefault(status.st_ino, name)
        keys = os.listxattr(path, follow_symlinks=False)
        body = path.readlink() if path.is_symlink() else path.is_file() and path.read_bytes()
        xattrs = {key: os.getxattr(path, key) for key in keys}
        owner = status.st_uid, status.st_gid
        found[name] = (oct(status.st_mode), owner, int(status.st_mtime), first, xattrs, body)
    return found


def test_packed_from_a_stream_or_from_a_folder_it_is_the_same_image(tmp_path: Path) -> None:
    source = layout(tmp_path / "in")
    put(
        source,
        folder("./", 0o1775, mtime=5)
        + folder("d/", 0o700, uid=300_000, mtime=9)
        + NOTE
        + member("d/f", b"x" * 300_000, mode=0o604, uid=1, gid=2, mtime=99)
        + hardlink("d/g", "d/f")
        + member(b"d/" + b"n" * 90, mtime=EPOCH + 50)
        + symlink("link", "d/" + "../" * 30)
        + END,
    )
    pictures = []
    for name, at in (("stream", EPOCH + 60), ("folder", EPOCH + 40)):
        (tmp_path / name).mkdir()
        clock = FixedClock(datetime.fromtimestamp(at, UTC))
        made = convert(source, tmp_path / name, clock=clock)
        pictures.append(picture(unpacked(tmp_path / name, made)))
    assert pictures[0] == pictures[1]
    assert pictures[0]["."][:3] == (oct(0o041775), (0, 0), EPOCH + 50)
    assert pictures[0]["d/g"][3] == "d/f"


def test_a_root_that_is_not_roots_is_kept(tmp_path: Path) -> None:
    source = layout(tmp_path / "in")
    put(source, NOTE + folder("./", 0o750, uid=7, gid=8) + LOWER)
    status = unpacked(tmp_path, convert(source, tmp_path)).stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (7, 8, 0o750)
    assert os.getxattr(tmp_path / "tree", "user.note") == b"text"


def test_links_and_files_where_a_folder_is_wanted_stay(tmp_path: Path) -> None:
    source = layout(tmp_path / "in")
    put(source, symlink("var", "/etc") + member("run", b"1") + folder("tmp/", 0o700) + END)
    tree = unpacked(tmp_path, convert(source, tmp_path))
    assert str((tree / "var").readlink()) == "/etc"
    assert (tree / "run").read_text() == "1"
    assert (tree / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert list((tree / "etc").iterdir()) == []


def test_any_user_may_convert_and_gets_the_same(tmp_path: Path) -> None:
    source = layout(tmp_path / "in")
    put(source, LOWER, UPPER, suffix="+gzip")
    wanted = convert(source, tmp_path).digest
    # Not below tmp_path, which is root's alone.
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        shutil.copytree(tmp_path / "in", folder / "in")
        for path in (folder, *folder.rglob("*")):
            os.chown(path, 65534, 65534)
        os.seteuid(65534)
        try:
            mine = LayoutRepository(folder / "in")
            assert convert(mine, folder).digest == wanted
            with pytest.raises(UsageError, match="t: packing erofs needs 65536 subordinate ids"):
                convert(mine, folder, kind="erofs")
            early = FixedClock(datetime.fromtimestamp(EPOCH - 1, UTC))
            with pytest.raises(UsageError, match="t: an image with a time in the future"):
                convert(mine, folder, clock=early)
        finally:
            os.seteuid(0)
