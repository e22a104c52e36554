"""Copies that are interrupted: every worker ends, and no tag is set."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager

import pytest

from machineos.core.digest import Digest
from machineos.oci.graph.copy import _first_end, copy_graph
from machineos.oci.model.documents import MANIFEST, Descriptor, Manifest
from unit.oci.graph.test_copy_exact import Sink, Source
from unit.oci.samples import LAYER, put_bytes
from waiting import wait_for


def test_an_interrupt_ends_the_workers() -> None:
    """Also the one that is in the midst of a blob: it does not read it to its end."""
    size, main, sink = 8_000_000, threading.get_ident(), Sink()
    read = 0

    class Interrupts(Source):
        def open_blob(self, descriptor: Descriptor) -> AbstractContextManager[Iterator[bytes]]:
            return self._slow() if descriptor.size == size else super().open_blob(descriptor)

        @contextmanager
        def _slow(self) -> Iterator[Iterator[bytes]]:
            def chunks() -> Iterator[bytes]:
                nonlocal read
                wait_for(lambda: len(sink.blobs) == 21, what="the other worker to do the rest")
                signal.pthread_kill(main, signal.SIGINT)
                while True:
                    read += 1
                    yield b"s"

            yield chunks()

    source = Interrupts()
    large = Descriptor(media_type=LAYER, digest=Digest.of(b"slow"), size=size)
    layers = (large, *(put_bytes(source, b"%d" % number) for number in range(20)))
    manifest = Manifest(media_type=MANIFEST, config=put_bytes(source, b"{}"), layers=layers)
    source.put_manifest(manifest.to_bytes(), media_type=MANIFEST, tag="1.0")
    with pytest.raises(KeyboardInterrupt):
        copy_graph(source, sink, "1.0", tag="1.0", workers=2)
    assert read < size
    assert sink.tags() == ()
    assert not [one for one in threading.enumerate() if one.name.startswith("oci-copy")]


def test_workers_are_waited_for_in_pieces() -> None:
    """Between two of them an interrupt that came just before the wait is noticed."""

    class Late(list[Future[None]]):
        """Its last one ends while it is looked at for the second time."""

        looked = 0

        def __iter__(self) -> Iterator[Future[None]]:
            self.looked += 1
            if self.looked == 2:
                self[-1].set_result(None)
            return super().__iter__()

    first: Future[None] = Future()
    first.set_result(None)
    late = Late([first, Future()])
    assert set(_first_end(late, wake=0)) == {first, late[-1]}
    assert late.looked == 2
