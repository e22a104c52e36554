"""Runs the programs that the modules beside it describe, where a call takes more than one step."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.core.run import perform
from machineos.errors import MissingError
from machineos.host.kernel.superblock import VERITY, round_up
from machineos.host.pack import depmod, elf, fat, mmdebstrap, verity, xorriso
from machineos.host.pack.caller import run_boxed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from machineos.core.word import RootHash
    from machineos.host.kernel.superblock import Superblock
    from machineos.host.pack.container import Ids


def build_root(
    suite: mmdebstrap.Suite,
    output: Path,
    *,
    epoch: int,
    ids: Ids,
    archives: Path | None = None,
    proxies: Mapping[str, str] | None = None,
) -> None:
    """Write a Debian root as the tar archive ``output``, in a container with ``ids``.

    Temporary files go beside it; ``proxies`` are variables for apt; for the rest see
    ``mmdebstrap.build_box``. Raises: ToolError, MissingToolError, ToolTimeoutError.
    """
    with tempfile.TemporaryDirectory(prefix="debian-", dir=output.parent) as name:
        work = Path(name)
        for folder in (work,) if archives is None else (work, archives):
            os.chown(folder, ids.uid, ids.gid)
        box = mmdebstrap.build_box(suite, epoch=epoch, temporary=work, archives=archives)
        run_boxed(box, ids, timeout=mmdebstrap.TIMEOUT, more=proxies)
        (work / mmdebstrap.OUTPUT).rename(output)
    os.chown(output, os.geteuid(), os.getegid())


def make_fat(
    image: Path, *, label: str, files: Mapping[str, Path], epoch: int, size: int | None = None
) -> None:
    """Write a FAT image with ``files`` (name with ``/`` -> source), as small as it can be, or of
    ``size`` bytes. Raises: ToolError, MissingToolError."""
    total = size or fat.image_size(sum(source.stat().st_size for source in files.values()))
    with image.open("wb") as file:
        file.truncate(total)
    for command in fat.image_commands(image, label=label, files=files, epoch=epoch, size=total):
        perform(command)


def make_medium(tree: Path, esp: str, image: Path, *, label: str, epoch: int) -> None:
    """Write ``tree`` as an ISO that firmware boots from an optical drive and from a stick; ``esp``
    is the name of the FAT image in it. Raises: ToolError, MissingToolError."""
    perform(xorriso.make_command(tree, esp, image, label=label, epoch=epoch))
    with image.open("rb") as file:
        file.seek(xorriso.RECORD_AT)
        file.seek(xorriso.catalog_at(file.read(xorriso.BLOCK)))
        start = xorriso.boot_image_at(file.read(xorriso.BLOCK))
    size = (tree / esp).stat().st_size
    perform(xorriso.partition_command(image, start=start, size=size, label=label, epoch=epoch))


def format_verity(path: Path, *, data_size: int, salt: str, uuid: str) -> RootHash:
    """Append a hash tree to ``path`` and return its root hash; for the arguments see
    ``verity.format_command``. Raises: ToolError, MissingToolError."""
    command = verity.format_command(path, data_size=data_size, salt=salt, uuid=uuid)
    return verity.parse_format(perform(command).text)


def verify_verity(path: Path, *, data_size: int, root_hash: RootHash, what: str) -> Superblock:
    """Check every block of ``path``, whose file system takes ``data_size`` bytes.

    Raises: VerificationError when there is no tree, when it is not of our kind, when it does not
    match, or when there are bytes that it does not cover; MissingToolError.
    """
    offset = round_up(data_size)
    with path.open("rb") as file:
        file.seek(offset)
        head = file.read(VERITY.size)
    superblock = verity.parse_tree(head, offset=offset, size=path.stat().st_size, what=what)
    result = perform(verity.verify_command(path, data_size=offset, root_hash=root_hash))
    verity.require_match(result, root_hash=root_hash, what=what)
    return superblock


def index_modules(root: Path, kernel: str) -> depmod.ModuleTable:
    """Index the modules of ``kernel`` under ``root`` (a file system tree) and return the table.

    Raises: MissingToolError, ToolError.
    """
    perform(depmod.index_command(root, kernel))
    folder = root / "usr/lib/modules" / kernel
    return depmod.parse_table(*((folder / name).read_text("utf-8") for name in depmod.TABLES))


def firmware_of(paths: Iterable[Path]) -> tuple[str, ...]:
    """Return the firmware files that these modules name. Raises: MissingToolError, ToolError."""
    found = perform(depmod.firmware_command(paths)).text.split()
    return tuple(sorted(set(found)))


def libraries_of(root: Path, programs: Iterable[Path]) -> tuple[Path, ...]:
    """Return every library that ``programs`` need, transitively, as paths inside ``root``.

    Raises: MissingError for a library that is nowhere in the tree, ToolError.
    """
    found: dict[str, Path] = {}
    todo = list(programs)
    while todo:
        for name in elf.parse_needed(perform(elf.needed_command(todo.pop())).text):
            if name not in found:
                found[name] = _find(root, name)
                todo.append(found[name])
    return tuple(sorted(found.values()))


def _find(root: Path, name: str) -> Path:
    for folder in elf.FOLDERS:
        path = root / folder / name
        if path.exists():
            return path
    raise MissingError(f"{name} is needed but not in {root}")
