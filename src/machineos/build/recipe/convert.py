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

from machineos.build.recipe.archive import Limits, Policy
from machineos.build.recipe.config import ImageConfig, parse_config, put_image
from machineos.build.recipe.filesystem import make_layer, make_streamed_layer, verify_layer
from machineos.build.recipe.flatten import Flattener
from machineos.build.recipe.layers import add_layers
from machineos.build.recipe.mountpoints import mount_points
from machineos.build.recipe.sandbox import require_root
from machineos.core.clock import SystemClock
from machineos.core.files import needing_space
from machineos.document.model.limits import MAX_CONFIG
from machineos.document.product.image import check_image_config
from machineos.document.rules.storage import FOLDERS, Tree
from machineos.errors import DocumentError, Fault, MissingError
from machineos.oci.model.atomfs import FilesystemKind, parse_layer_type, root_hash_of
from machineos.oci.model.documents import (
    Descriptor,
    Index,
    Manifest,
    parse_document,
    parse_manifest,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from machineos.build.recipe.filesystem import VerityLayer
    from machineos.core.clock import Clock
    from machineos.document.model.install import Mount
    from machineos.oci.model.repository import Repository

Platform = tuple[str, str]
_BUFFER = 1 << 20


def convert_image(
    source: Repository,
    reference: str,
    sink: Repository,
    *,
    work: Path,
    epoch: int,
    platform: Platform = ("linux", "amd64"),
    kind: FilesystemKind = "squashfs",
    limits: Limits | None = None,
    policy: Policy | None = None,
    progress: Callable[[str], None] = lambda _line: None,
    tag: str | None = None,
    clock: Clock | None = None,
    mounts: Sequence[Mount] | None = None,
) -> Descriptor:
    """Bring the image ``reference`` of ``source`` into ``sink`` as a single verity layer.

    ``work`` is a folder for temporary files, on a disk with room for the unpacked image; ``tag``
    names the result in ``sink``; ``mounts`` is what a container of it is going to have mounted, for
    which there must be folders (not looked for in an image that needs no conversion). Returns the
    descriptor of its manifest. Raises: ArchiveError, VerificationError, DocumentError,
    MissingError, TransferError, SpaceError, ToolError, UsageError when not root, for EROFS, layers
    that are file systems, times in the future (which ``clock`` tells), and a root folder that is
    not 0:0 or has attributes: there, files are written with their owners.
    """
    manifest, data = read_image(source, reference, platform)
    name = f"{source.name}: configuration {manifest.config.digest}"
    check_image_config(source.blob(manifest.config, limit=MAX_CONFIG), name=name)
    if _is_converted(manifest):
        progress(f"{reference}: is a verity layer already, checking every block")
        return _copy_checked(source, manifest, data, sink, work=work, tag=tag)
    with tempfile.TemporaryDirectory(dir=work, prefix="convert-") as folder:
        with flattened(
            source, manifest, work=Path(folder), limits=limits, policy=policy, progress=progress
        ) as (config, flattener):
            for parts, mode in mount_points(config.run.get("Volumes", {})):
                flattener.ensure_folder(parts, mode=mode, mtime=epoch)
            if mounts is not None:
                FOLDERS.require(Tree(flattener.folder_problem, tuple(mounts)), f"image {reference}")
            progress(f"{reference}: packing {kind}")
            layer = _pack(
                flattener,
                reference,
                Path(folder),
                kind=kind,
                epoch=epoch,
                clock=clock or SystemClock(),
            )
        body = config.to_bytes(layer.digest, epoch=epoch, created_by="mosb image convert")
        return put_image(sink, layer, body, tag=tag, annotations=manifest.annotations)


def read_image(source: Repository, reference: str, platform: Platform) -> tuple[Manifest, bytes]:
    """Return the manifest of an image and its bytes, chosen from an index by ``platform``.

    Raises: MissingError when the index has none for it, DocumentError, TransferError.
    """
    descriptor, data = source.manifest(reference)
    name = f"{source.name}:{reference}"
    document = parse_document(data, name=name, media_type=descriptor.media_type)
    if isinstance(document, Index):
        entry = _choose(document, platform, name)
        _found, data = source.manifest(str(entry.digest))
        document = parse_manifest(data, name=name, media_type=entry.media_type)
    if document.artifact_type or not document.layers:
        raise DocumentError(
            name, [Fault("", 0, "is not an image: it is an artifact or has no layers")]
        )
    return document, data


def unpack_image(
    source: Repository,
    manifest: Manifest,
    tree: Path,
    *,
    limits: Limits | None = None,
    policy: Policy | None = None,
    progress: Callable[[str], None] = lambda _line: None,
) -> ImageConfig:
    """Write all layers of an image into the new folder ``tree``; return its configuration.

    Temporary files go beside ``tree``. Raises: as ``convert_image``.
    """
    require_root(f"{source.name}: unpacking an image")
    with flattened(
        source, manifest, work=tree.parent, limits=limits, policy=policy, progress=progress
    ) as (config, flattener):
        flattener.write(tree)
    return config


@contextmanager
def flattened(
    source: Repository,
    manifest: Manifest,
    *,
    work: Path,
    limits: Limits | None = None,
    policy: Policy | None = None,
    progress: Callable[[str], None] = lambda _line: None,
) -> Iterator[tuple[ImageConfig, Flattener]]:
    """Yield the configuration of an image and all its layers in one, each digest checked.

    Temporary files go to ``work`` and with the block. Raises: as ``convert_image``.
    """
    name = f"{source.name}: configuration {manifest.config.digest}"
    config, diff_ids = parse_config(source.blob(manifest.config, limit=MAX_CONFIG), name=name)
    if config.os != "linux":
        raise DocumentError(
            name, [Fault("os", 0, f"is {config.os[:40]!r}, only linux can be used")]
        )
    if len(diff_ids) != len(manifest.layers):
        count = len(manifest.layers)
        message = f"has {len(diff_ids)} entries for {count} layers"
        raise DocumentError(name, [Fault("rootfs.diff_ids", 0, message)])
    with needing_space(work), tempfile.TemporaryFile(dir=work, buffering=_BUFFER) as spool:
        flattener = Flattener(spool, limits=limits or Limits(), policy=policy or Policy())
        progress(f"{source.name}: unpacking {len(manifest.layers)} layers")
        add_layers(flattener, source, manifest.layers, diff_ids, work=work)
        for member in flattener.stripped:
            progress(f"{source.name}: took the set-user-id bit from {member}")
        yield config, flattener


def _pack(
    flattener: Flattener, name: str, work: Path, *, kind: FilesystemKind, epoch: int, clock: Clock
) -> VerityLayer:
    """Make the layer, without a folder of files in between where mksquashfs can do without."""
    output = work / "layer"
    why = f"packing {kind}"
    if kind == "squashfs":
        newest = flattener.make_root_newest(epoch)
        root = flattener.root
        if newest > clock.now().timestamp():
            why = f"an image with a time in the future ({newest} seconds after 1970)"
        elif (root.uid, root.gid) != (0, 0) or root.xattrs:
            why = "an image whose root folder is not 0:0 or has attributes"
        else:
            return make_streamed_layer(flattener.stream, output, mode=root.mode, newest=newest)
    require_root(f"{name}: {why}")
    flattener.write(work / "tree")
    return make_layer(work / "tree", output, kind=kind, epoch=epoch, keep_times=True)


def _choose(index: Index, platform: Platform, name: str) -> Descriptor:
    found = [
        entry
        for entry in index.manifests
        if (entry.platform or {}).get("os") == platform[0]
        and (entry.platform or {}).get("architecture") == platform[1]
    ]
    if not found:
        known = {
            f"{(entry.platform or {}).get('os')}/{(entry.platform or {}).get('architecture')}"
            for entry in index.manifests
        }
        raise MissingError(
            f"{name}: has no image for {'/'.join(platform)}",
            hint=f"it has: {', '.join(sorted(known))}",
        )
    return found[0]


def _is_converted(manifest: Manifest) -> bool:
    return len(manifest.layers) == 1 and parse_layer_type(manifest.layers[0].media_type) is not None


def _copy_checked(
    source: Repository,
    manifest: Manifest,
    data: bytes,
    sink: Repository,
    *,
    work: Path,
    tag: str | None,
) -> Descriptor:
    layer = manifest.layers[0]
    kind = parse_layer_type(layer.media_type)
    what = f"{source.name}: layer {layer.digest}"
    if kind is None:
        raise DocumentError(what, [Fault("mediaType", 0, "is not a mountable layer")])
    root_hash = root_hash_of(layer)
    config = source.blob(manifest.config, limit=MAX_CONFIG)
    with tempfile.TemporaryDirectory(dir=work, prefix="convert-") as name:
        path = Path(name) / "layer"
        with source.open_blob(layer) as chunks, path.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
        verify_layer(path, kind.filesystem, root_hash=root_hash, what=what)
        with path.open("rb") as file:
            sink.put_blob(layer, iter(lambda: file.read(1 << 20), b""))
    sink.put_blob(manifest.config, (config,))
    return sink.put_manifest(data, media_type=manifest.media_type, tag=tag)
