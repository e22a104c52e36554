"""zstd streams, decompressed by the ``zstd`` program (Python learns it only in 3.14)."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.core.run import spawn
from machineos.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_CHUNK = 1 << 18
_WINDOW_MIB = 128


def argv_decompress(path: Path) -> list[str]:
    """Return the command that writes the content of ``path`` to standard output."""
    return ["zstd", "-d", "-c", "-q", "--no-progress", f"--memory={_WINDOW_MIB}MB", str(path)]


@contextmanager
def decompressed(path: Path, *, what: str) -> Iterator[Iterator[bytes]]:
    """Yield the chunks of the decompressed content of ``path``.

    The program ends with the block. Raises while iterating: ArchiveError when the stream is
    damaged; and MissingToolError.
    """
    reader, writer = os.pipe()
    try:
        process = spawn(argv_decompress(path), log=writer)
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)

    def chunks() -> Iterator[bytes]:
        held = b""
        while chunk := os.read(reader, _CHUNK):
            if held:
                yield held
            held = chunk
        if process.wait() != 0:
            # What it complains about came down the same pipe, so it is the end of what we hold.
            reason = held[-200:].decode("utf-8", "replace").strip()
            raise ArchiveError(f"{what}: is not a whole zstd stream: {reason}")
        if held:
            yield held

    try:
        yield chunks()
    finally:
        os.close(reader)
        process.kill()
        process.wait()


@contextmanager
def spooled(chunks: Iterable[bytes], folder: Path) -> Iterator[Path]:
    """Yield a file that holds ``chunks``, for a program that reads one; it goes with the block."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix="zstd-") as file:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        yield Path(file.name)
