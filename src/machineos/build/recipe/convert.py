"""Any OCI image becomes one with a single layer that the kernel can check block by block.

Invariant: the same image, epoch and kind give the same digest (docs/adr/0003 has the one
exception: times in the future); an image that already is one verity
layer comes out as it went in, byte for byte, after every block of it was checked. Why one layer:
docs/adr/0003.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

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
from machineos.build.recipe.layers import add_layers
from machineos.build.recipe.mountpoints import mount_points
from machineos.build.recipe.sandbox import require_root
from machineos.core.files import needing_space
from machineos.document.model.limits import MAX_CONFIG
from machineos.document.product.image import check_image_config, resolve_user
from machineos.document.rules.programs import STACK
from machineos.document.rules.storage import FOLDERS, Tree
from machineos.oci.graph.platform import choose
from machineos.oci.model.atomfs import root_hash_of
from machineos.oci.model.documents import Index, parse_document, parse_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from machineos.build.recipe.conversion import Conversion, Platform, Unpacking
    from machineos.build.recipe.veritylayer import VerityLayer
    from machineos.document.model.install import Mount
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

    ``tag`` names the result in ``sink``. Returns the descriptor of its manifest. Folders for mounts
    and the user are not looked for in an image that needs no conversion, nor are its programs.
    Raises: ArchiveError, VerificationError, DocumentError, MissingError, TransferError, SpaceError,
    ToolError, UsageError when not root, for EROFS, layers that are file systems, times in the
    future, and a root folder that is not 0:0 or has attributes: there, files are written with their
    owners.
    """
    manifest, data = read_image(source, reference, conversion.platform)
    name = f"{source.name}: configuration {manifest.config.digest}"
    check_image_config(source.blob(manifest.config, limit=MAX_CONFIG), name=name)
    kind = converted_kind(manifest)
    if kind is not None:
        conversion.progress(f"{reference}: is a verity layer already, checking every block")
        return _copy_checked(source, manifest, data, sink, kind, work=conversion.work, tag=tag)
    with tempfile.TemporaryDirectory(dir=conversion.work, prefix="convert-") as folder:
        work = Path(folder)
        with flattened(source, manifest, conversion, work=work) as (config, flattener):
            for parts, mode in mount_points(config.run.get("Volumes", {})):
                flattener.tree.ensure_folder(parts, mode=mode, mtime=conversion.epoch)
            if conversion.mounts is not None:
                _require_runnable(config, flattener, conversion.mounts, reference)
            STACK.require(flattener.programs(), f"image {reference}")
            conversion.progress(f"{reference}: packing {conversion.kind}")
            layer = _pack(flattener, reference, work, conversion)
        epoch = conversion.epoch
        body = config.to_bytes(layer.digest, epoch=epoch, created_by="mosb image convert")
        return put_image(sink, (layer,), body, tag=tag, annotations=manifest.annotations)


def read_image(source: Repository, reference: str, platform: Platform) -> tuple[Manifest, bytes]:
    """Return the manifest of an image and its bytes, chosen from an index by ``platform``.

    Raises: MissingError when the index has none for it, DocumentError, TransferError.
    """
    descriptor, data = source.manifest(reference)
    name = f"{source.name}:{reference}"
    document = parse_document(data, name=name, media_type=descriptor.media_type)
    if isinstance(document, Index):
        entry = choose(document, platform, name)
        _found, data = source.manifest(str(entry.digest))
        document = parse_manifest(data, name=name, media_type=entry.media_type)
    require_image(document, name)
    return document, data


def unpack_image(
    source: Repository, manifest: Manifest, tree: Path, unpacking: Unpacking
) -> ImageConfig:
    """Write all layers of an image into the new folder ``tree``; return its configuration.

    Raises: as ``convert_image``.
    """
    require_root(f"{source.name}: unpacking an image")
    with flattened(source, manifest, unpacking) as (config, flattener):
        flattener.write(tree)
    return config


@contextmanager
def flattened(
    source: Repository, manifest: Manifest, unpacking: Unpacking, *, work: Path | None = None
) -> Iterator[tuple[ImageConfig, Flattener]]:
    """Yield the configuration of an image and all its layers in one, each digest checked.

    Temporary files go to ``work`` and with the block. Raises: as ``convert_image``.
    """
    folder = work or unpacking.work
    name = f"{source.name}: configuration {manifest.config.digest}"
    config, diff_ids = parse_config(source.blob(manifest.config, limit=MAX_CONFIG), name=name)
    require_usable(config, diff_ids, manifest, name)
    with needing_space(folder), tempfile.TemporaryFile(dir=folder, buffering=_BUFFER) as spool:
        flattener = Flattener(spool, limits=unpacking.limits, policy=unpacking.policy)
        unpacking.progress(f"{source.name}: unpacking {len(manifest.layers)} layers")
        add_layers(flattener, source, manifest.layers, diff_ids, work=folder)
        for member in flattener.stripped:
            unpacking.progress(f"{source.name}: took the set-user-id bit from {member}")
        yield config, flattener


def _require_runnable(
    config: ImageConfig, flattener: Flattener, mounts: tuple[Mount, ...], name: str
) -> None:
    """Refuse what the machine would refuse to run, by the same rules, in the same order."""
    tree = Tree(lambda path: flattener.tree.see_folder(path).problem, mounts)
    FOLDERS.require(tree, f"image {name}")
    resolve_user(config.run.get("User", ""), flattener.see_file, image=name)


def _pack(flattener: Flattener, name: str, work: Path, conversion: Conversion) -> VerityLayer:
    """Make the layer, without a folder of files in between where mksquashfs can do without."""
    output, kind, epoch = work / "layer", conversion.kind, conversion.epoch
    newest = flattener.tree.make_root_newest(epoch) if kind == "squashfs" else epoch
    root = flattener.root
    why = why_not_streamed(kind, root, newest=newest, now=conversion.clock.now().timestamp())
    if not why:
        return make_streamed_layer(flattener.stream, output, mode=root.mode, newest=newest)
    require_root(f"{name}: {why}")
    flattener.write(work / "tree")
    return make_layer(work / "tree", output, kind=kind, epoch=epoch, keep_times=True)


def _copy_checked(
    source: Repository,
    manifest: Manifest,
    data: bytes,
    sink: Repository,
    kind: FilesystemKind,
    *,
    work: Path,
    tag: str | None,
) -> Descriptor:
    layer = manifest.layers[0]
    root_hash = root_hash_of(layer)
    config = source.blob(manifest.config, limit=MAX_CONFIG)
    with tempfile.TemporaryDirectory(dir=work, prefix="convert-") as name:
        path = Path(name) / "layer"
        with source.open_blob(layer) as chunks, path.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
        what = f"{source.name}: layer {layer.digest}"
        verify_layer(path, kind, root_hash=root_hash, what=what)
        with path.open("rb") as file:
            sink.put_blob(layer, iter(lambda: file.read(1 << 20), b""))
    sink.put_blob(manifest.config, (config,))
    return sink.put_manifest(data, media_type=manifest.media_type, tag=tag)
