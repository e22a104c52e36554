"""Writing what was planned: what is there already, and what is cut off."""

from __future__ import annotations

import shutil
from collections.abc import Iterable

from machineos.core.digest import Digest
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.documents import Descriptor, parse_manifest
from machineos.oci.model.repository import Registry, Repository
from unit.document.conftest import World


class FullDiskError(Exception):
    pass


def test_what_is_there_is_not_written_again_and_what_is_lost_is(world: World) -> None:
    first = world.publish()
    store, own = (world.registry.repository(name) for name in ("mos", "machine/install"))
    index, said = (store.path / "index.json").read_bytes(), list[str]()
    again = world.publish(say=said.append)
    assert again.descriptor == first.descriptor
    assert (store.path / "index.json").read_bytes() == index
    assert any(line.startswith("zot is at ") for line in said), said
    target = first.verified.install.targets[0]
    for lost in (store.referrers(target.image)[0].digest, layers_of(store, target.image)[0]):
        store.blob_path(lost).unlink()
        world.publish()
        assert store.blob_path(lost).is_file()
    assert world.fetch().verified.install.targets == first.verified.install.targets
    assert own.tags()


def layers_of(store: LayoutRepository, image: Digest) -> list[Digest]:
    document = parse_manifest(store.manifest(str(image))[1], name="image")
    return [layer.digest for layer in document.layers]


def test_the_tag_comes_last(world: World) -> None:
    """Cut the publishing at every write: the tag never names what is not complete."""
    writes = 0
    while True:
        shutil.rmtree(world.root, ignore_errors=True)  # what is there is not written again
        registry = Cut(world.registry, writes)
        try:
            world.publish(registry=registry)
        except FullDiskError:
            own = world.registry.repository("machine/install")
            assert not (own.path / "index.json").exists() or "1.0.0" not in own.tags()
            writes += 1
        else:
            break
    assert writes > 10
    assert world.fetch().verified.install.targets


class Cut:
    """A registry in which every write after the first few fails."""

    def __init__(self, registry: Registry, writes: int) -> None:
        self.registry = registry
        self.left = [writes]
        self.name = registry.name

    def repository(self, name: str) -> CutRepository:
        return CutRepository(self.registry.repository(name), self.left)


class CutRepository:
    """One of its repositories; ``left`` is how many writes still succeed in all of them."""

    def __init__(self, inner: Repository, left: list[int]) -> None:
        self._inner = inner
        self._left = left
        self.name = inner.name
        self.resolve = inner.resolve
        self.manifest = inner.manifest
        self.has_blob = inner.has_blob
        self.blob = inner.blob
        self.open_blob = inner.open_blob
        self.referrers = inner.referrers
        self.tags = inner.tags

    def _count(self) -> None:
        if self._left[0] == 0:
            raise FullDiskError
        self._left[0] -= 1

    def put_blob(self, descriptor: Descriptor, chunks: Iterable[bytes]) -> None:
        self._count()
        self._inner.put_blob(descriptor, chunks)

    def put_manifest(self, data: bytes, *, media_type: str, tag: str | None = None) -> Descriptor:
        self._count()
        return self._inner.put_manifest(data, media_type=media_type, tag=tag)
