"""Any OCI image becomes one with a single layer that the kernel can check block by block.

Invariant: the same image, epoch and kind give the same digest (docs/adr/0003 has the one
exception: times in the future). An image that already is one verity layer and was packed here comes
out as it went in, byte for byte, after every block and every member of it was checked, unless it
breaks what is promised of all (set-user-id bits) or lacks the folders that a container needs. Of
anybody else it is packed again: no kernel parses what a stranger wrote. Why one layer:
docs/adr/0003; what becomes of ready ones: 0032, 0034.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from machineos.build.recipe.config import ImageConfig, parse_config
from machineos.build.recipe.conversion import (
    converted_kind,
    require_image,
    require_usable,
    why_not_streamed,
)
from machineos.build.recipe.filesystem import make_layer, make_streamed_layer, verify_layer
from machineos.build.recipe.flatten import Flattener
from machineos.build.recipe.image import put_image
from machineos.build.recipe.inspection import require_runnable
from machineos.build.recipe.layers import add_file_system, add_layers
from machineos.build.recipe.mountpoints import mount_points
from machineos.build.recipe.use import Container
from machineos.core.files import needing_space
from machineos.core.printable import counted
from machineos.document.model.limits import MAX_CONFIG
from machineos.document.product.image import check_image_config, parse_image_config
from machineos.document.rules.programs import STACK
from machineos.document.rules.storage import KERNEL_FOLDERS
from machineos.host.pack.caller import container_ids, ids_to_look, own_ids
from machineos.oci.graph.platform import choose
from machineos.oci.model.atomfs import root_hash_of
from machineos.oci.model.documents import Index, parse_document, parse_manifest
from machineos.oci.model.reference import image_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from machineos.build.recipe.conversion import Conversion, Unpacking
    from machineos.build.recipe.veritylayer import VerityLayer
    from machineos.document.model.image import Platform
    from machineos.document.model.install import Mount
    from machineos.host.pack.container import Ids
    from machineos.oci.model.atomfs import FilesystemKind
    from machineos.oci.model.documents import Descriptor, Manifest
    from machineos.oci.model.repository import Repository

_BUFFER = 1 << 20


def convert_image(
    source: Repository,
    reference: str,
    sink: Repository,
    conversion: Conversion,
    *,
    tag: str | None = None,
) -> Descriptor:
    """Bring the image ``reference`` of ``source`` into ``sink`` as a single verity layer.

    ``tag`` names the result in ``sink``. Returns the descriptor of its manifest.
    Raises: ArchiveError, VerificationError, DocumentError, MissingError, TransferError, SpaceError,
    ToolError, UsageError for EROFS, times in the future, and a root folder that is not 0:0 or has
    attributes, unless the caller may give files to others (``host.pack.caller``): there, files are
    written with their owners.
    """
    manifest, data = read_image(source, reference, conversion.platform)
    image = image_of(source.name, reference)
    name = f"{image}: configuration {manifest.config.digest}"
    body = source.blob(manifest.config, limit=MAX_CONFIG)
    check_image_config(body, name=name, platform=conversion.platform)
    with tempfile.TemporaryDirectory(dir=conversion.work, prefix="convert-") as folder:
        work = Path(folder)
        making = _Making(image, manifest.annotations, conversion, work, sink, tag)
        kind = converted_kind(manifest)
        if kind is None:
            with flattened(source, manifest, conversion, work=work, image=image) as (
                config,
                flattener,
            ):
                return _made(making, config, flattener)
        conversion.progress(f"{image}: is a verity layer already, checking every block")
        path = _checked(source, manifest.layers[0], kind, work)
        what = f"{image}: layer {manifest.layers[0].digest}"
        with _spooled(conversion, work) as flattener:
            add_file_system(flattener, path, kind, what=what, ids=ids_to_look())
            STACK.require(flattener.programs(), f"image {image}")
            if conversion.packed(manifest) and not _must_change(flattener, conversion.mounts):
                _require_mounts(making, flattener, body, name)
                return _copied(making, manifest, data, body, path)
            if kind == "squashfs":
                _tell_stripped(flattener, image, conversion)
                return _made(making, _ready_config(body, name, conversion), flattener)
        # Of an EROFS the owners are seen only with subordinate ids.
        with _spooled(conversion, work) as flattener:
            ids = container_ids(f"{image}: packing its EROFS again")
            add_file_system(flattener, path, kind, what=what, ids=ids, owners=True)
            _tell_stripped(flattener, image, conversion)
            return _made(making, _ready_config(body, name, conversion), flattener)


def _ready_config(body: bytes, name: str, conversion: Conversion) -> ImageConfig:
    """Return the configuration of an image that may say little of itself."""
    config, _ = parse_config(body, name=name, ready=True)
    system, architecture = conversion.platform
    return msgspec.structs.replace(
        config, os=config.os or system, architecture=config.architecture or architecture
    )


@dataclass(frozen=True, slots=True)
class _Making:
    """What is being made, what messages call it, and where it goes."""

    image: str
    annotations: Mapping[str, str]
    conversion: Conversion
    work: Path
    sink: Repository
    tag: str | None


def _made(making: _Making, config: ImageConfig, flattener: Flattener) -> Descriptor:
    """Pack what was read, and store it."""
    conversion, name = making.conversion, making.image
    for parts, mode in mount_points(config.run.get("Volumes", {})):
        flattener.tree.ensure_folder(parts, mode=mode, mtime=conversion.epoch)
    if conversion.mounts is not None:
        container = Container(conversion.mounts, config.run.get("User", ""))
        require_runnable(flattener, container, name)
    STACK.require(flattener.programs(), f"image {name}")
    conversion.progress(f"{name}: packing {conversion.kind}")
    layer = _pack(flattener, name, making.work, conversion)
    body = config.to_bytes(layer.digest, epoch=conversion.epoch, created_by="mosb image convert")
    return put_image(making.sink, (layer,), body, tag=making.tag, annotations=making.annotations)


def read_image(source: Repository, reference: str, platform: Platform) -> tuple[Manifest, bytes]:
    """Return the manifest of an image and its bytes, chosen from an index by ``platform``.

    Raises: MissingError when the index has none for it, DocumentError, TransferError.
    """
    descriptor, data = source.manifest(reference)
    name = image_of(source.name, reference)
    document = parse_document(data, name=name, media_type=descriptor.media_type)
    if isinstance(document, Index):
        entry = choose(document, platform, name)
        _found, data = source.manifest(str(entry.digest))
        document = parse_manifest(data, name=name, media_type=entry.media_type)
    require_image(document, name)
    return document, data


def unpack_image(
    source: Repository, manifest: Manifest, tree: Path, unpacking: Unpacking, *, ids: Ids
) -> ImageConfig:
    """Write all layers of an image into the new folder ``tree``, its owners those of a container
    with ``ids``; return its configuration.

    Raises: as ``convert_image``.
    """
    with flattened(source, manifest, unpacking) as (config, flattener):
        flattener.write(tree, ids)
    return config


@contextmanager
def flattened(
    source: Repository,
    manifest: Manifest,
    unpacking: Unpacking,
    *,
    work: Path | None = None,
    image: str = "",
) -> Iterator[tuple[ImageConfig, Flattener]]:
    """Yield the configuration of an image and all its layers in one, each digest checked.

    Temporary files go to ``work`` and with the block; ``image`` is what messages call it.
    Raises: as ``convert_image``.
    """
    folder = work or unpacking.work
    image = image or source.name
    name = f"{image}: configuration {manifest.config.digest}"
    config, diff_ids = parse_config(source.blob(manifest.config, limit=MAX_CONFIG), name=name)
    require_usable(config, diff_ids, manifest, name)
    with _spooled(unpacking, folder) as flattener:
        unpacking.progress(f"{image}: unpacking {counted(len(manifest.layers), 'layer')}")
        add_layers(flattener, source, manifest.layers, diff_ids, work=folder, image=image)
        _tell_stripped(flattener, image, unpacking)
        yield config, flattener


@contextmanager
def _spooled(unpacking: Unpacking, folder: Path) -> Iterator[Flattener]:
    with needing_space(folder), tempfile.TemporaryFile(dir=folder, buffering=_BUFFER) as spool:
        yield Flattener(spool, limits=unpacking.limits, policy=unpacking.policy)


def _tell_stripped(flattener: Flattener, name: str, unpacking: Unpacking) -> None:
    for member in flattener.stripped:
        unpacking.progress(f"{name}: took the set-user-id bit from {member}")


def _must_change(flattener: Flattener, mounts: tuple[Mount, ...] | None) -> bool:
    """Whether a layer that is ready made has to be packed again: it lacks what is mounted in every
    container, or its files lose a bit."""
    lacks = any(flattener.tree.see_folder(path).absent for path in KERNEL_FOLDERS)
    return bool(flattener.stripped) or (mounts is not None and lacks)


def _require_mounts(making: _Making, flattener: Flattener, body: bytes, name: str) -> None:
    mounts = making.conversion.mounts
    if mounts is not None:
        user = parse_image_config(body, name=name).user
        require_runnable(flattener, Container(mounts, user), making.image)


def _pack(flattener: Flattener, name: str, work: Path, conversion: Conversion) -> VerityLayer:
    """Make the layer, without a folder of files in between where mksquashfs can do without."""
    output, kind, epoch = work / "layer", conversion.kind, conversion.epoch
    newest = flattener.tree.make_root_newest(epoch) if kind == "squashfs" else epoch
    root = flattener.root
    why = why_not_streamed(kind, root, newest=newest, now=conversion.clock.now().timestamp())
    if not why:
        return make_streamed_layer(flattener.stream, output, mode=root.mode, newest=newest)
    ids = own_ids(f"{name}: {why}")
    flattener.write(work / "tree", ids)
    return make_layer(work / "tree", output, kind=kind, epoch=epoch, keep_times=True, ids=ids)


def _checked(source: Repository, layer: Descriptor, kind: FilesystemKind, work: Path) -> Path:
    """Return a file with the bytes of a layer whose every block matches its root hash."""
    root_hash = root_hash_of(layer)
    path = work / "given"
    with source.open_blob(layer) as chunks, path.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)
    verify_layer(path, kind, root_hash=root_hash, what=f"{source.name}: layer {layer.digest}")
    return path


def _copied(
    making: _Making, manifest: Manifest, data: bytes, config: bytes, path: Path
) -> Descriptor:
    """Store the image as it is."""
    sink = making.sink
    with path.open("rb") as file:
        sink.put_blob(manifest.layers[0], iter(lambda: file.read(_BUFFER), b""))
    sink.put_blob(manifest.config, (config,))
    return sink.put_manifest(data, media_type=manifest.media_type, tag=making.tag)
