"""What a program writes, as chunks: for programs that take a stranger's bytes apart."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from machineos.core.run import spawn
from machineos.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_CHUNK = 1 << 18


@contextmanager
def piped(
    argv: Sequence[str],
    *,
    problem: str,
    pass_fds: Sequence[int] = (),
    require_run: Callable[[int, str], None] = lambda _status, _said: None,
) -> Iterator[Iterator[bytes]]:
    """Yield the chunks that a program writes to its standard output; it ends with the block.

    ``problem`` says of what it reads that it is bad, when the program failed; before that
    ``require_run`` raises, by its exit status and what it said last, if it has read nothing. Raises
    while iterating: ArchiveError; and MissingToolError.
    """
    reader, writer = os.pipe()
    try:
        process = spawn(argv, log=writer, pass_fds=pass_fds)
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
        status = process.wait()
        if status != 0:
            # What it complains about came down the same pipe, so it is the end of what we hold.
            reason = held[-200:].decode("utf-8", "replace").strip()
            require_run(status, reason)
            raise ArchiveError(f"{problem}: {reason}")
        if held:
            yield held

    try:
        yield chunks()
    finally:
        os.close(reader)
        process.kill()
        process.wait()
