"""Keeping what an image was built of in the layout that it was built into, and reading it there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.build.recipe.inputs import (
    FOLDER,
    MAX_INPUTS,
    Inputs,
    inputs_bytes,
    parse_inputs,
    record_name,
)
from machineos.core.files import read_bounded, write_atomic
from machineos.errors import MissingError
from machineos.oci.layout.folder import LayoutRepository

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.core.digest import Digest
    from machineos.oci.model.repository import Repository


def keep_inputs(sink: Repository, image: Digest, inputs: Inputs) -> None:
    """Write the record of an image beside it; a registry has no place for it.

    Where two builds made the same image of different things, the last one counts.
    Raises: SpaceError.
    """
    if isinstance(sink, LayoutRepository):
        path = _path(sink, image)
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, inputs_bytes(inputs))


def read_inputs(repository: Repository, image: Digest) -> Inputs:
    """Return what an image was built of, nothing where there is no record of it.

    Raises: DocumentError, DigestError.
    """
    if not isinstance(repository, LayoutRepository):
        return Inputs()
    path = _path(repository, image)
    try:
        data = read_bounded(path, MAX_INPUTS)
    except (MissingError, NotADirectoryError):
        return Inputs()
    return parse_inputs(data, name=str(path))


def _path(layout: LayoutRepository, image: Digest) -> Path:
    return layout.path / FOLDER / record_name(image)
