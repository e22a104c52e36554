"""zstd streams, decompressed by the ``zstd`` program (Python learns it only in 3.14)."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.host.pack.pipe import piped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager

_WINDOW_MIB = 128


def argv_decompress(path: Path) -> list[str]:
    """Return the command that writes the content of ``path`` to standard output."""
    return ["zstd", "-d", "-c", "-q", "--no-progress", f"--memory={_WINDOW_MIB}MB", str(path)]


def decompressed(path: Path, *, what: str) -> AbstractContextManager[Iterator[bytes]]:
    """Give the chunks of the decompressed content of ``path``.

    The program ends with the block. Raises while iterating: ArchiveError when the stream is
    damaged; and MissingToolError.
    """
    return piped(argv_decompress(path), problem=f"{what}: is not a whole zstd stream")


@contextmanager
def spooled(chunks: Iterable[bytes], folder: Path) -> Iterator[Path]:
    """Yield a file that holds ``chunks``, for a program that reads one; it goes with the block."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix="zstd-") as file:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        yield Path(file.name)
