"""What the shell may offer where an image or a manifest is to be named that is in a layout: tags,
names of manifests, targets.

Only folders are looked into, no registry is asked: a person waits with a finger on the key. What is
offered was verified by nobody, and what cannot be read offers nothing.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.errors import MachineOSError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import click

_LAYOUT = "oci:"
_DEEPEST = 4  # parts of the name of a repository
# Tags that say a digest: of an image of a manifest, of what is attached to something.
_BY_DIGEST = re.compile(r"[0-9a-f]{64}|sha256-.*").fullmatch


def images(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return the images oci:DIR:TAG that begin so."""
    folder, colon, _ = begun.removeprefix(_LAYOUT).partition(":")
    if not begun.startswith(_LAYOUT) or not colon:
        return []
    return _beginning(begun, (f"{_LAYOUT}{folder}:{tag}" for tag in _tags(Path(folder))))


def manifests(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return the names PATH:TAG that begin so, of what is in the folder of --repo."""
    root = _root(context)
    return _beginning(begun, _names(root)) if root is not None else []


def targets(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return the targets that begin so, of the manifest that was named before."""
    root = _root(context)
    path, _, tag = str(context.params.get("name") or "").rpartition(":")
    return _beginning(begun, _targets(root / path, tag)) if root is not None and path else []


def _root(context: click.Context) -> Path | None:
    repo = str(context.params.get("repo") or "")
    return Path(repo.removeprefix(_LAYOUT)) if repo.startswith(_LAYOUT) else None


def _names(root: Path) -> Iterator[str]:
    for depth in range(1, _DEEPEST + 1):
        for index in sorted(root.glob("*/" * depth + "index.json")):
            name = str(index.parent.relative_to(root))
            yield from (f"{name}:{tag}" for tag in _tags(index.parent) if not _BY_DIGEST(tag))


def _tags(folder: Path) -> tuple[str, ...]:
    from machineos.oci.layout.folder import LayoutRepository

    with suppress(MachineOSError, OSError):
        return LayoutRepository(folder, links=True).tags()
    return ()


def _targets(folder: Path, tag: str) -> list[str]:
    from machineos.document.model.limits import MAX_INSTALL
    from machineos.document.product.install import parse_install
    from machineos.oci.layout.folder import LayoutRepository
    from machineos.oci.model.documents import parse_manifest

    with suppress(MachineOSError, OSError, IndexError):
        repository = LayoutRepository(folder, links=True)
        descriptor, data = repository.manifest(tag)
        manifest = parse_manifest(data, name=tag, media_type=descriptor.media_type)
        install = parse_install(repository.blob(manifest.layers[0], limit=MAX_INSTALL))
        return [target.service_name for target in install.targets]
    return []


def _beginning(begun: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(begun) and name.isprintable()]
