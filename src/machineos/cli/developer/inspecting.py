"""The inspector of layers that the commands share, with its record in the user's cache."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.cli import app
from machineos.oci.model.documents import parse_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from machineos.build.recipe.inspection import Inspector
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
