"""Images that come ready made: what a conversion would refuse is neither signed nor verified."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from machineos.build.publish.publish import Published
from machineos.build.publish.verify import verify_images
from machineos.build.recipe.conversion import Conversion
from machineos.build.recipe.convert import convert_image
from machineos.build.recipe.inspection import Inspector
from machineos.build.recipe.member import Policy
from machineos.build.recipe.record import Record
from machineos.build.recipe.use import Use
from machineos.core.clock import SystemClock
from machineos.core.digest import Digest
from machineos.document.model.install import Mount
from machineos.document.verify.images import VerifiedImage
from machineos.errors import (
    ArchiveError,
    DocumentError,
    MachineOSError,
    VerificationError,
)
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.atomfs import FilesystemKind
from machineos.oci.model.documents import Descriptor, parse_manifest
from machineos.oci.model.repository import Repository
from unit.build import ready
from unit.build.elf import program
from unit.build.publish.test_verify import fetch
from unit.document.conftest import SOURCE, World

pytestmark = [
    pytest.mark.tool(name)
    for name in ("mksquashfs", "mkfs.erofs", "fsck.erofs", "sqfs2tar", "veritysetup")
]
PARTIAL = SOURCE.replace("complete", "partial")
MOUNT = """\
storage:
  - label: data
    size: 1
    nsgroup: zot
"""
MOUNTED = MOUNT + PARTIAL.replace(
    "    nsgroup:", "    storage:\n      - dest: /data\n        label: data\n    nsgroup:"
)


class Bench:
    """A world with one ready image, and an inspector whose record is kept."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.folder = folder
        self.said: list[str] = []
        folder.mkdir()

    @property
    def images(self) -> LayoutRepository:
        return LayoutRepository(self.world.images, writable=True)

    @property
    def inspector(self) -> Inspector:
        return Inspector(self.folder, Record(self.folder / "proved"), say=self.said.append)

    def convert(
        self, repository: Repository, reference: str, mounts: tuple[Mount, ...] | None
    ) -> tuple[LayoutRepository, Descriptor]:
        """Convert as publishing does."""
        sink = LayoutRepository(self.folder / "converted", writable=True)
        asked = Conversion(
            self.folder,
            clock=SystemClock(),
            epoch=0,
            mounts=mounts,
            packed=self.inspector.packed,
        )
        return sink, convert_image(repository, reference, sink, asked)

    def publish(self, text: str = PARTIAL, **more: object) -> Published:
        arguments: dict[str, object] = {"inspector": self.inspector, "defaults": None, **more}
        return self.world.publish(text, **arguments)

    def verify(self, text: str = PARTIAL) -> tuple[VerifiedImage, ...]:
        """Verify deeply what somebody signed who looks at nothing."""
        self.world.publish_carelessly(text, boots=False)
        return verify_images(self.world.registry, fetch(self.world), deep=self.inspector)

    def put(self, tree: Path, kind: FilesystemKind = "squashfs", **more: Any) -> Descriptor:  # noqa: ANN401 (of put)
        return ready.put(self.images, "zot", ready.packed(tree, kind), **more)


@pytest.fixture
def bench(world: World, tmp_path: Path) -> Bench:
    return Bench(world, tmp_path / "bench")


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> dict[FilesystemKind, ready.Packed]:
    tree = ready.tree(tmp_path_factory.mktemp("ready") / "tree")
    return {kind: ready.packed(tree, kind) for kind in ready.KINDS}


@pytest.mark.parametrize("kind", ready.KINDS)
def test_a_good_one_of_ours_passes_byte_for_byte(
    bench: Bench, layers: dict[FilesystemKind, ready.Packed], kind: FilesystemKind
) -> None:
    made = ready.put(bench.images, "zot", layers[kind])
    _, data = bench.images.manifest(str(made.digest))
    manifest = parse_manifest(data, name="m", media_type=made.media_type)
    bench.inspector.note_packed(manifest, vetted=False)
    assert bench.publish(converter=bench).verified.install.targets[0].image == made.digest
    assert bench.convert(bench.images, "zot", None)[1].digest == made.digest
    assert len(bench.verify()) == 1


@pytest.mark.parametrize("kind", ready.KINDS)
def test_a_layer_that_is_a_link_or_for_its_owner_alone_is_looked_into(
    bench: Bench, layers: dict[FilesystemKind, ready.Packed], kind: FilesystemKind
) -> None:
    """Bazel writes the first, a strict umask the second."""
    made = ready.put(bench.images, "zot", layers[kind])
    _, data = bench.images.manifest(str(made.digest))
    (layer,) = parse_manifest(data, name="m", media_type=made.media_type).layers
    blob = bench.images.blob_path(layer.digest)
    blob.rename(bench.folder / "real")
    (bench.folder / "real").chmod(0o600)
    blob.symlink_to(bench.folder / "real")
    linked = LayoutRepository(bench.world.images, links=True)
    bench.inspector.inspect_layer(linked, layer, [Use("zot", "image zot")])
    assert bench.inspector.knows(layer, [Use("zot", "image zot")])


@pytest.mark.parametrize("kind", ["squashfs", pytest.param("erofs", marks=pytest.mark.root)])
def test_a_file_system_of_anybody_else_is_packed_again(
    bench: Bench, layers: dict[FilesystemKind, ready.Packed], kind: FilesystemKind
) -> None:
    """A machine's kernel parses what we wrote; what an image says of itself counts for nothing."""
    given = ready.put(bench.images, "zot", layers[kind])
    published = bench.publish(converter=bench).verified.install.targets[0].image
    assert published != given.digest
    converted, made = bench.convert(bench.images, "zot", None)
    assert published == made.digest
    _, data = converted.manifest(str(made.digest))
    (layer,) = parse_manifest(data, name="m", media_type=made.media_type).layers
    assert layer.digest != Digest.of(layers[kind].content)
    assert bench.publish(converter=bench).verified.install.targets[0].image == made.digest


@pytest.mark.parametrize(("kind", "name"), ready.VARIANTS)
def test_a_tampered_one_is_refused_everywhere(
    bench: Bench, layers: dict[FilesystemKind, ready.Packed], kind: FilesystemKind, name: str
) -> None:
    ready.put(bench.images, "zot", ready.tampered(layers[kind], name))
    with pytest.raises(VerificationError, match="target zot"):
        bench.publish()
    with pytest.raises(VerificationError):
        bench.convert(bench.images, "zot", None)
    with pytest.raises(VerificationError, match="image of zot: layer sha256:"):
        bench.verify()


def test_the_recorded_attack(bench: Bench, layers: dict[FilesystemKind, ready.Packed]) -> None:
    """The manifest of a published image is edited, as by sed; its layer stays."""
    bench.put(ready.tree(bench.folder / "tree"))
    bench.publish()
    layer = ready.tampered(layers["squashfs"], ready.FOREIGN)
    made = ready.put(bench.images, "zot", layer)
    with pytest.raises(VerificationError) as caught:
        bench.publish()
    (entry,) = parse_manifest(bench.images.manifest(str(made.digest))[1], name="x").layers
    source = f"oci:{bench.world.images}:zot"
    assert caught.value.message.startswith(
        f"target zot ({source}): layer {entry.digest}: does not match its root hash {'ab' * 32}"
    )


# -- what is inside


def with_fifo(tree: Path) -> None:
    os.mkfifo(tree / "bin/pipe")


def with_device(tree: Path) -> None:
    os.mknod(tree / "bin/null", 0o20666, os.makedev(1, 3))


def with_stack(tree: Path) -> None:
    (tree / "bin/bad").write_bytes(program(7))
    (tree / "bin/bad").chmod(0o755)


def with_link(tree: Path) -> None:
    (tree / "proc").rmdir()
    (tree / "proc").symlink_to("bin")


INSIDE = [
    (with_fifo, "member './bin/pipe' is a FIFO, which an image must not hold"),
    (with_stack, "'/bin/bad' wants its stack to be executable"),
    (with_link, "nothing can be mounted at /proc: /proc is a symbolic link"),
    pytest.param(
        with_device,
        "device, which an image must not hold",  # fsck.erofs, which cannot make it, says not where
        marks=pytest.mark.root,
    ),
]


@pytest.mark.parametrize("kind", ready.KINDS)
@pytest.mark.parametrize(("spoil", "words"), INSIDE)
def test_what_no_archive_may_hold(
    bench: Bench, kind: FilesystemKind, spoil: Callable[[Path], None], words: str
) -> None:
    """By the same functions, wherever it comes in."""
    tree = ready.tree(bench.folder / "tree")
    spoil(tree)
    bench.put(tree, kind)
    for gate in (bench.publish, bench.verify, lambda: bench.publish(converter=bench)):
        with pytest.raises(ArchiveError) as caught:
            gate()
        assert words in caught.value.message.replace("'bin/", "'./bin/")


def test_a_container_that_lacks_what_is_mounted(bench: Bench) -> None:
    """Folders that every container needs come with a conversion; a volume's is the author's."""
    bench.put(ready.tree(bench.folder / "tree", without=("proc",)))
    with pytest.raises(ArchiveError, match="nothing can be mounted at /proc: /proc does not exist"):
        bench.verify()
    with pytest.raises(ArchiveError, match="image zot: nothing can be mounted at /proc"):
        bench.publish()
    published = bench.publish(converter=bench)
    found = verify_images(bench.world.registry, published.verified, deep=bench.inspector)
    assert found[0].target.image != bench.images.resolve("zot").digest
    with pytest.raises(ArchiveError, match="nothing can be mounted at /data: /data does not exist"):
        bench.publish(MOUNTED, converter=bench)


def test_a_volume_without_a_folder(bench: Bench) -> None:
    bench.put(ready.tree(bench.folder / "tree"))
    bench.publish()
    words = "image zot: nothing can be mounted at /data: /data does not exist"
    for gate in (bench.publish, bench.verify):
        with pytest.raises(ArchiveError, match=words):
            gate(MOUNTED)
    bench.put(ready.tree(bench.folder / "more", "data"))
    bench.publish(MOUNTED)
    assert len(bench.verify(MOUNTED)) == 1


def test_a_user_that_the_image_does_not_know(bench: Bench) -> None:
    tree = ready.tree(bench.folder / "tree", "etc")
    bench.put(tree, run={"User": "app"})
    for gate in (bench.publish, bench.verify):
        with pytest.raises(DocumentError, match="'app' is not a user and group of the image"):
            gate()
    (tree / "etc/passwd").write_text("app:x:7:7::/:/bin/x\n")
    bench.put(tree, run={"User": "app"})
    bench.publish()
    assert len(bench.verify()) == 1


def test_an_image_for_another_machine(
    bench: Bench, layers: dict[FilesystemKind, ready.Packed]
) -> None:
    ready.put(bench.images, "zot", layers["squashfs"], architecture="arm64")
    for gate in (bench.publish, bench.verify, lambda: bench.convert(bench.images, "zot", None)):
        with pytest.raises(DocumentError, match="architecture: is 'arm64', not amd64"):
            gate()


@pytest.mark.parametrize("kind", ["squashfs", pytest.param("erofs", marks=pytest.mark.root)])
def test_set_user_id_bits_of_a_ready_layer(bench: Bench, kind: FilesystemKind) -> None:
    """--setuid is a promise about every image, whatever it was."""
    tree = ready.tree(bench.folder / "tree")
    (tree / "bin/x").chmod(0o4755)
    given = bench.put(tree, kind)

    def convert(setuid: Literal["keep", "strip", "refuse"]) -> Descriptor:
        sink = LayoutRepository(bench.folder / setuid, writable=True)
        policy = Policy(setuid=setuid)
        asked = Conversion(
            bench.folder,
            clock=SystemClock(),
            epoch=0,
            kind=kind,
            policy=policy,
            packed=lambda _: True,
        )
        return convert_image(bench.images, "zot", sink, asked, tag="t")

    assert convert("keep").digest == given.digest
    with pytest.raises(ArchiveError, match="bin/x' is set-user-id or set-group-id"):
        convert("refuse")
    assert convert("strip").digest != given.digest
    made = LayoutRepository(bench.folder / "strip", writable=True)
    again = Conversion(
        bench.folder,
        clock=SystemClock(),
        epoch=0,
        kind=kind,
        policy=Policy(setuid="refuse"),
        packed=lambda _: True,
    )
    assert convert_image(made, "t", made, again).digest == made.resolve("t").digest
    assert bench.publish().verified.install.targets[0].image == given.digest


# -- what is known


def test_what_was_proved_is_not_read_again(bench: Bench) -> None:
    bench.put(ready.tree(bench.folder / "tree"))
    bench.publish()
    assert len(bench.said) == 1
    bench.publish(tag="2")
    bench.verify()
    assert len(bench.said) == 1
    (bench.world.images / "blobs/sha256").rename(bench.folder / "away")


def test_another_root_hash_is_another_question(
    bench: Bench, layers: dict[FilesystemKind, ready.Packed]
) -> None:
    """That the bytes are known says nothing of a hash that somebody else wrote beside them."""
    ready.put(bench.images, "zot", layers["squashfs"])
    bench.publish()
    ready.put(bench.images, "zot", ready.tampered(layers["squashfs"], ready.FOREIGN))
    with pytest.raises(VerificationError, match="does not match its root hash"):
        bench.publish()


def test_all_images_are_told_at_once(bench: Bench) -> None:
    second = "  - service_name: zot".join(PARTIAL.split("  - service_name: zot"))
    more = second.split("targets:\n")[1].replace("zot", "other").replace(".99", ".98")
    text = PARTIAL + more.replace("host: 80", "host: 81").replace("{images}:other", "{images}:none")
    bench.put(ready.tree(bench.folder / "tree"), run={"Entrypoint": None})
    with pytest.raises(MachineOSError) as caught:
        bench.publish(text)
    assert caught.value.message.count("\n  ") >= 2
    assert "target zot" in caught.value.message
    assert "no tag 'none'" in caught.value.message
