"""Blobs on their way: the last chunk comes only after the digest of the whole matched."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from machineos.core.digest import Digest
from machineos.errors import DigestError
from machineos.oci.model.documents import Descriptor
from machineos.oci.model.stream import Verified, verified

SMALL = (b"one", b"", b"two", b"three")
LARGE = tuple(bytes([number]) * (1 << 20) for number in range(9))  # hashed in a thread


def descriptor(chunks: tuple[bytes, ...], **changes: object) -> Descriptor:
    data = b"".join(chunks)
    values = {"media_type": "x", "digest": Digest.of(data), "size": len(data), **changes}
    return Descriptor(**values)  # type: ignore[arg-type]


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "oci-hash"]


@pytest.mark.parametrize("chunks", [SMALL, LARGE, (), (b"",)], ids=["small", "large", "no", "nil"])
def test_what_is_right_passes_as_it_is(chunks: tuple[bytes, ...]) -> None:
    found = list(Verified(chunks, descriptor(chunks), "it"))
    assert found == [chunk for chunk in chunks if chunk]
    assert threads() == []


@pytest.mark.parametrize("chunks", [SMALL, LARGE], ids=["small", "large"])
def test_the_last_chunk_is_kept_back_until_all_matched(chunks: tuple[bytes, ...]) -> None:
    wrong = descriptor(chunks, digest=Digest.of(b"other"))
    seen: list[bytes] = []
    with pytest.raises(DigestError, match="it: digest is"):
        seen.extend(Verified(chunks, wrong, "it"))
    assert seen == [chunk for chunk in chunks if chunk][:-1]
    assert threads() == []


@pytest.mark.parametrize("chunks", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize(("more", "said"), [(-1, "longer than"), (1, "bytes, expected")])
def test_another_size_than_promised(chunks: tuple[bytes, ...], more: int, said: str) -> None:
    size = sum(map(len, chunks))
    with pytest.raises(DigestError, match=said):
        list(Verified(chunks, descriptor(chunks, size=size + more), "it"))
    assert threads() == []


def test_a_stream_that_goes_on_is_cut_off() -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield bytes(1 << 20)

    with pytest.raises(DigestError, match="longer than the 9437184 bytes promised"):
        list(Verified(endless(), descriptor(LARGE), "it"))
    # The thread may be a few chunks behind, not more than its queue holds.
    assert taken <= 9 + 1 + 4 + 2
    assert threads() == []


def test_stopping_early_ends_the_thread() -> None:
    stream = Verified(LARGE, descriptor(LARGE), "it")
    next(stream)
    assert threads() == ["oci-hash"]
    stream.close()
    assert threads() == []


def test_who_watches_hears_of_each_chunk_and_can_end_it() -> None:
    stream = Verified(SMALL, descriptor(SMALL), "it")
    heard: list[int] = []
    stream.observe(heard.append)
    assert list(stream) == [b"one", b"two", b"three"]
    assert heard == [3, 3, 5]

    def stop(_length: int) -> None:
        raise KeyboardInterrupt

    other = Verified(SMALL, descriptor(SMALL), "it")
    other.observe(stop)
    with pytest.raises(KeyboardInterrupt):
        next(other)


def test_what_is_checked_already_is_not_hashed_again() -> None:
    stream = Verified(SMALL, descriptor(SMALL), "it")
    assert stream.covers(descriptor(SMALL))
    assert stream.covers(descriptor(SMALL, media_type="other"))
    assert not stream.covers(descriptor(SMALL, size=12))
    assert not stream.covers(descriptor(SMALL, digest=Digest.of(b"other")))
    assert verified(stream, descriptor(SMALL), "it") is stream
    assert verified(stream, descriptor(SMALL, size=12), "it") is not stream
    next(stream)
    assert not stream.covers(descriptor(SMALL))
    assert verified(stream, descriptor(SMALL), "it") is not stream
    plain = verified(SMALL, descriptor(SMALL), "it")
    assert isinstance(plain, Verified)
    assert b"".join(plain) == b"onetwothree"


@pytest.mark.parametrize(("size", "count"), [((8 << 20) - 1, 0), (8 << 20, 1)])
def test_from_which_size_on_a_thread_hashes(size: int, count: int) -> None:
    chunks = (bytes(size - 1), b"\0")
    with_thread: list[int] = []

    def watched() -> Iterator[bytes]:
        for chunk in chunks:
            with_thread.append(len(threads()))
            yield chunk

    assert list(Verified(watched(), descriptor(chunks), "it")) == list(chunks)
    assert with_thread == [count, count]
