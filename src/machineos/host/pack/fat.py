"""FAT file systems in files, without mounting: ``mkfs.vfat`` and mtools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.core.command import Command

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_TIMEOUT = 120.0
_MIN_FAT32 = 36 << 20
_MIN_DEFAULT_CLUSTERS = 16 << 20
_ROOM = 4 << 20
_MIB = 1 << 20


def image_size(content: int) -> int:
    """Return a size in bytes that is enough for ``content`` bytes of files: with 2 % and 4 MiB
    for the file system itself, in whole MiB."""
    wanted = content + content // 50 + _ROOM
    return -(-wanted // _MIB) * _MIB


def image_commands(
    image: Path,
    *,
    label: str,
    files: Mapping[str, Path],
    epoch: int,
    size: int,
    volume_id: str = "4d4f5321",
) -> tuple[Command, ...]:
    """Return the commands that make a FAT file system with ``files`` (name with ``/`` -> source)
    in ``image``, a file of ``size`` bytes. ``volume_id`` is 8 hex digits.

    The same input gives the same bytes.
    """
    env = (("SOURCE_DATE_EPOCH", str(epoch)), ("MTOOLS_SKIP_CHECK", "1"))
    commands = [_format_command(image, label=label, size=size, volume_id=volume_id)]
    made: set[str] = set()
    for name, source in files.items():
        parts = name.split("/")
        for folder in ("/".join(parts[:depth]) for depth in range(1, len(parts))):
            if folder not in made:
                made.add(folder)
                argv: tuple[str, ...] = ("mmd", "-i", str(image), f"::{folder}")
                commands.append(Command(argv, _TIMEOUT, env=env))
        argv = ("mcopy", "-i", str(image), str(source), f"::{name}")
        commands.append(Command(argv, _TIMEOUT, env=env))
    return tuple(commands)


def _format_command(image: Path, *, label: str, size: int, volume_id: str) -> Command:
    """The program's own choice of clusters gives too few of them for FAT16 below 16 MiB."""
    kind = 32 if size >= _MIN_FAT32 else 16
    clusters = ("-s1",) if size < _MIN_DEFAULT_CLUSTERS else ()
    argv = (
        "mkfs.vfat", "--invariant", f"-F{kind}", *clusters, "-n", label, "-i", volume_id,
        str(image),
    )  # fmt: skip
    return Command(argv, _TIMEOUT)
