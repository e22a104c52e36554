"""Making a lock: asking each source of a manifest which image it is now.

Nothing is written here but what ``write_lock`` is told; deciding whether a lock fits is ``lock``'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import machineos
from machineos.build.publish.lock import (
    MAX_LOCK,
    Builder,
    Lock,
    LockedImage,
    moved,
    name_of,
    parse_lock,
)
from machineos.build.recipe.inputsfile import read_inputs
from machineos.core.files import read_named, write_atomic
from machineos.core.run import perform
from machineos.document.rules.publisher import has_tar_layers
from machineos.errors import MissingError, MissingToolError
from machineos.host.pack import squashfs, verity
from machineos.oci.model.documents import Manifest, parse_document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from machineos.build.publish.source import ImageTarget
    from machineos.core.command import Command
    from machineos.oci.model.reference import ImageSource
    from machineos.oci.model.repository import Repository


def load_lock(path: Path) -> Lock | None:
    """Return the lock in a file, None where there is none. Raises: DocumentError."""
    try:
        data = read_named(path, MAX_LOCK)
    except MissingError:
        return None
    return parse_lock(data, name=str(path))


def write_lock(path: Path, lock: Lock) -> bool:
    """Write a lock unless that file is it already; return whether it was written."""
    data = lock.to_bytes()
    try:
        if read_named(path, MAX_LOCK) == data:
            return False
    except MissingError:
        pass
    write_atomic(path, data)
    return True


def make_lock(
    targets: Iterable[ImageTarget],
    open_source: Callable[[ImageSource], Repository],
    builder: Builder,
    say: Callable[[str], None] = lambda _line: None,
    *,
    packed: Callable[[Manifest], bool],
    old: Lock | None = None,
) -> Lock:
    """Return the lock of ``targets`` as their sources answer now, each source once.

    What an image was built of is looked for where ``mosb image build`` leaves it, in a layout.
    ``packed`` says of an image whether it was packed here; what an ``old`` lock says of the same
    image stays, since not every machine knows it.
    Raises: MissingError, TransferError, DocumentError, VerificationError.
    """
    found: dict[str, LockedImage] = {}
    for target in targets:
        name = name_of(target)
        if name in found:
            continue
        say(f"find {target.service_name} at {target.source}")
        repository = open_source(target.source)
        descriptor, data = repository.manifest(target.source.selector)
        document = parse_document(data, name=name, media_type=descriptor.media_type)
        ours = isinstance(document, Manifest) and not has_tar_layers(document) and packed(document)
        before = None if old is None else old.image_of(target)
        if before is not None and before.digest == descriptor.digest:
            ours = ours or before.packed
        made_of = read_inputs(repository, descriptor.digest)
        found[name] = LockedImage(
            name, descriptor.digest, made_of.inputs, made_of.packages, packed=ours
        )
    return Lock(builder, tuple(found.values()))


def moved_since(
    lock: Lock,
    targets: Iterable[ImageTarget],
    open_source: Callable[[ImageSource], Repository],
    *,
    registries: bool,
) -> tuple[str, ...]:
    """Return a line for each source that is another image than the lock, which fits, has.

    What is on this machine is asked always; a registry, which costs a request for each, only with
    ``registries``.
    Raises: TransferError, DocumentError.
    """
    lines: dict[str, None] = {}  # a set in order
    for target in targets:
        locked = lock.digest_of(target)
        if locked is None or not (registries or target.source.reference is None):
            continue
        try:
            now = open_source(target.source).resolve(target.source.selector).digest
        except MissingError:
            now = None
        if now != locked:
            lines[moved(name_of(target), locked, now)] = None
    return tuple(lines)


def this_builder() -> Builder:
    """Return what would convert an image on this machine. Raises: ToolError."""
    return Builder(
        mosb=machineos.__version__,
        mksquashfs=_version(squashfs.version_command()),
        veritysetup=_version(verity.version_command()),
    )


def _version(command: Command) -> str:
    """Return the version that a program prints: the first word with a digit in it."""
    try:
        text = perform(command).text
    except MissingToolError:
        return ""
    words = text.partition("\n")[0].split()
    return next((word[:64] for word in words if word[0].isdigit()), "")
