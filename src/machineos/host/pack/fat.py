"""FAT file systems in files, without mounting: ``mkfs.vfat`` and mtools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.core.run import run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_TIMEOUT = 120.0
_MIN_FAT32 = 36 << 20
_MIN_DEFAULT_CLUSTERS = 16 << 20


def argv_make(image: Path, *, label: str, size: int, volume_id: str) -> list[str]:
    """Return the command that formats; ``volume_id`` is 8 hex digits, ``size`` that of the image.

    The program's own choice of clusters gives too few of them for FAT16 below 16 MiB.
    """
    kind = 32 if size >= _MIN_FAT32 else 16
    clusters = ["-s1"] if size < _MIN_DEFAULT_CLUSTERS else []
    return [
        "mkfs.vfat", "--invariant", f"-F{kind}", *clusters, "-n", label, "-i", volume_id,
        str(image),
    ]  # fmt: skip


def make_image(
    image: Path,
    *,
    label: str,
    files: Mapping[str, Path],
    epoch: int,
    size: int | None = None,
    volume_id: str = "4d4f5321",
) -> None:
    """Write a FAT image with ``files`` (name with ``/`` -> source), as small as it can be.

    The same input gives the same bytes. ``size`` in bytes, when it is to have a given one.
    Raises: ToolError, MissingToolError.
    """
    content = sum(source.stat().st_size for source in files.values())
    total = size or max(_round(content + content // 50 + (4 << 20)), 4 << 20)
    with image.open("wb") as file:
        file.truncate(total)
    run(argv_make(image, label=label, size=total, volume_id=volume_id), timeout=_TIMEOUT)
    env = {"SOURCE_DATE_EPOCH": str(epoch), "MTOOLS_SKIP_CHECK": "1"}
    made: set[str] = set()
    for name, source in files.items():
        parts = name.split("/")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            if folder not in made:
                made.add(folder)
                run(["mmd", "-i", image, f"::{folder}"], timeout=_TIMEOUT, env=env)
        run(["mcopy", "-i", image, source, f"::{name}"], timeout=_TIMEOUT, env=env)


def _round(size: int) -> int:
    return -(-size // (1 << 20)) * (1 << 20)
