"""Blobs on their way: hashed once, beside the reading and the writing.

Owns ``Verified``, the type of a stream that has been checked against its descriptor. Invariant: its
last chunk is handed out only after size and digest of the whole matched, so a consumer that saw the
end of a ``Verified`` stream has seen the right bytes and need not hash them again; the check is of
the very bytes handed out, never of a file that could be read twice (CVE-2020-25860).
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

from machineos.core.digest import Checker
from machineos.errors import MachineOSError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from machineos.oci.model.documents import Descriptor

CHUNK = 1 << 20
_BESIDE = 8 << 20  # from this size on a thread for hashing is worth its start
_DEPTH = 4


class Verified:
    """An iterator over the chunks of the blob ``descriptor``.

    Raises while iterating: DigestError, and what the source raises.
    """

    def __init__(self, chunks: Iterable[bytes], descriptor: Descriptor, what: str) -> None:
        self.descriptor = descriptor
        self._chunks = _checked(chunks, descriptor, what)
        self._started = False
        self._observer: Callable[[int], None] | None = None

    def observe(self, observer: Callable[[int], None]) -> None:
        """Call ``observer`` with the length of each chunk before it is handed out; what it raises
        ends the stream."""
        self._observer = observer

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._started = True
        chunk = next(self._chunks)
        if self._observer is not None:
            self._observer(len(chunk))
        return chunk

    def covers(self, descriptor: Descriptor) -> bool:
        """Whether reading this to its end proves ``descriptor``: same blob, nothing read yet."""
        mine = (self.descriptor.digest, self.descriptor.size)
        return mine == (descriptor.digest, descriptor.size) and not self._started

    def close(self) -> None:
        """Stop early; the hashing thread ends."""
        self._chunks.close()


def verified(chunks: Iterable[bytes], descriptor: Descriptor, what: str) -> Verified:
    """Return ``chunks`` checked against ``descriptor``; a stream that is checked already is not
    hashed a second time."""
    if isinstance(chunks, Verified) and chunks.covers(descriptor):
        return chunks
    return Verified(chunks, descriptor, what)


def _checked(
    chunks: Iterable[bytes], descriptor: Descriptor, what: str
) -> Generator[bytes, None, None]:
    checker = Checker(descriptor.digest, descriptor.size, what)
    hasher = _Beside(checker) if descriptor.size >= _BESIDE else _Inline(checker)
    try:
        held = b""
        for chunk in chunks:
            if not chunk:
                continue
            hasher.update(chunk)
            if held:
                yield held
            held = chunk
        hasher.finish()
        if held:
            yield held
    finally:
        hasher.close()


class _Inline:
    def __init__(self, checker: Checker) -> None:
        self._checker = checker

    def update(self, chunk: bytes) -> None:
        self._checker.update(chunk)

    def finish(self) -> None:
        self._checker.finish()

    def close(self) -> None:
        pass


class _Beside:
    """The same, in a thread: hashing leaves the interpreter lock free for reading and writing."""

    def __init__(self, checker: Checker) -> None:
        self._checker = checker
        self._queue: queue.Queue[bytes | None] = queue.Queue(_DEPTH)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="oci-hash", daemon=True)
        self._thread.start()

    def update(self, chunk: bytes) -> None:
        if self._error is not None:
            raise self._error
        self._queue.put(chunk)

    def finish(self) -> None:
        self.close()
        if self._error is not None:
            raise self._error
        self._checker.finish()

    def close(self) -> None:
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (chunk := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self._checker.update(chunk)
                except MachineOSError as error:
                    self._error = error  # raised in the reader; the queue is still emptied
