"""The inspector of layers that the commands share, with its record in the user's cache."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.cli import app
from machineos.errors import MachineOSError
from machineos.oci.model.documents import parse_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from machineos.build.recipe.inspection import Inspector
    from machineos.document.model.install import Mount
    from machineos.oci.layout.folder import LayoutRepository
    from machineos.oci.model.documents import Descriptor
    from machineos.oci.model.repository import Repository


def inspector(say: Callable[[str], None]) -> Inspector:
    """Return an inspector of layers; where the cache cannot be written, it remembers nothing."""
    from machineos.build.recipe.inspection import Inspector
    from machineos.build.recipe.record import Record

    cache = app.home().cache / "machineos"
    work = cache
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:
        work = Path(tempfile.gettempdir())
    return Inspector(work, Record(cache / "proved"), say=say)


def note_packed(
    repository: Repository, images: Mapping[str, Descriptor], *, vetted: bool = False
) -> None:
    """Keep of images in ``repository`` that they were packed here, so that nobody hashes them
    again; ``vetted`` says that all their members were judged too."""
    known = inspector(lambda _line: None)
    for name, image in images.items():
        _, data = repository.manifest(str(image.digest))
        manifest = parse_manifest(data, name=name, media_type=image.media_type)
        known.note_packed(manifest, vetted=vetted)


def converted(
    cache: LayoutRepository, reference: str, epoch: int, mounts: tuple[Mount, ...] | None
) -> Descriptor | None:
    """Return what the same conversion of the same image gave here, where ``cache`` has it yet."""
    known = inspector(lambda _line: None).record.answer(_conversion(reference, epoch, mounts))
    if known is None:
        return None
    try:
        descriptor, data = cache.manifest(known)
    except MachineOSError:
        return None
    manifest = parse_manifest(data, name=known, media_type=descriptor.media_type)
    blobs = (manifest.config, *manifest.layers)
    return descriptor if all(cache.holds_blob(blob) for blob in blobs) else None


def note_converted(
    reference: str, epoch: int, mounts: tuple[Mount, ...] | None, made: Descriptor
) -> None:
    """Keep what a conversion gave."""
    question = _conversion(reference, epoch, mounts)
    inspector(lambda _line: None).record.note(question, str(made.digest))


def _conversion(reference: str, epoch: int, mounts: tuple[Mount, ...] | None) -> tuple[str, ...]:
    """Return all that decides what a conversion gives; ``reference`` is a digest."""
    import msgspec

    from machineos.build.publish.locking import this_builder
    from machineos.build.recipe.inspection import RULES

    builder = msgspec.json.encode(this_builder()).decode()
    places = ("mounted",) if mounts is None else ("run", *(mount.dest for mount in mounts))
    return ("converted", RULES, builder, reference, str(epoch), *places)
