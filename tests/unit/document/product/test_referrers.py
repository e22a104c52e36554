"""Artifacts of strangers: read one by one, bounded; a bad one is stepped over with its reason."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fakes.repository import MemoryRepository
from machineos.core.digest import Digest
from machineos.document.model.limits import MAX_REFERRERS, MAX_SMALL
from machineos.document.product.artifacts import Artifact, Referrers
from machineos.errors import MissingError, TransferError
from machineos.oci.model.documents import EMPTY_DESCRIPTOR, MANIFEST, Descriptor, Manifest

KIND = "application/x-kind"
SUBJECT = Descriptor(media_type=MANIFEST, digest=Digest.of(b"subject"), size=7)


@pytest.fixture
def repository() -> MemoryRepository:
    return MemoryRepository()


def put(repository: MemoryRepository, *blobs: bytes, **changes: object) -> Descriptor:
    """Store an artifact that refers to the subject."""
    layers = tuple(
        Descriptor(media_type="application/x", digest=Digest.of(blob), size=len(blob))
        for blob in blobs
    )
    values: dict[str, Any] = {
        "media_type": MANIFEST,
        "artifact_type": KIND,
        "config": EMPTY_DESCRIPTOR,
        "layers": layers,
        "subject": SUBJECT,
        **changes,
    }
    return Artifact(Manifest(**values), blobs).store(repository)


class Claims(MemoryRepository):
    """A repository that lists what it is told to, whatever that is."""

    listed: tuple[Descriptor, ...] = ()
    broken: frozenset[Digest] = frozenset()

    def referrers(self, _digest: Digest, *, artifact_type: str = "") -> tuple[Descriptor, ...]:
        return self.listed

    def manifest(self, reference: str) -> tuple[Descriptor, bytes]:
        if Digest.parse(reference) in self.broken:
            raise TransferError(f"reset at {reference}")
        return super().manifest(reference)

    def blob(self, descriptor: Descriptor, *, limit: int) -> bytes:
        if descriptor.digest in self.broken:
            raise TransferError(f"reset at {descriptor.digest}")
        return super().blob(descriptor, limit=limit)


@pytest.fixture
def claims() -> Claims:
    return Claims()


def test_what_refers_is_read(repository: MemoryRepository) -> None:
    put(repository, b"one")
    put(repository, b"two")
    put(repository, b"other", artifact_type="application/x-other")
    found = Referrers(repository, SUBJECT.digest, KIND)
    assert sorted(found.blobs()) == [b"one", b"two"]
    assert (found.faults, found.broken) == ([], None)
    again = Referrers(repository, SUBJECT.digest, KIND)
    assert {manifest.artifact_type for manifest in again.manifests()} == {KIND}


def test_the_same_blob_is_read_once(repository: MemoryRepository) -> None:
    for number in range(3):
        put(repository, b"same", annotations={"n": str(number)})
    assert list(Referrers(repository, SUBJECT.digest, KIND).blobs()) == [b"same"]
    assert repository.asked.count(Digest.of(b"same")) == 1


@pytest.mark.parametrize("blobs", [(), (b"a", b"b")])
def test_an_artifact_has_one_layer(repository: MemoryRepository, blobs: tuple[bytes, ...]) -> None:
    put(repository, *blobs)
    put(repository, b"good")
    found = Referrers(repository, SUBJECT.digest, KIND)
    assert list(found.blobs()) == [b"good"]
    assert found.faults == [f"an artifact has {len(blobs)} layers, not one"]


@pytest.mark.parametrize("more", [0, 1, 20])
def test_how_many_are_looked_at(claims: Claims, more: int) -> None:
    for number in range(MAX_REFERRERS + more):
        claims.listed += (put(claims, b"%d" % number),)
    found = Referrers(claims, SUBJECT.digest, KIND)
    assert len(list(found.blobs())) == MAX_REFERRERS == 128
    assert found.faults == ([f"{more} more were not looked at"] if more else [])


def test_how_large_a_blob_may_be(repository: MemoryRepository) -> None:
    put(repository, b"a" * MAX_SMALL)
    large = b"b" * (MAX_SMALL + 1)
    put(repository, large)
    found = Referrers(repository, SUBJECT.digest, KIND)
    assert list(found.blobs()) == [b"a" * 65536]
    assert found.faults == [f"{Digest.of(large)}: is larger than 65536 bytes"]
    assert Digest.of(large) not in repository.asked


def test_how_large_an_artifact_may_be(claims: Claims) -> None:
    good = put(claims, b"x", annotations={"a": ""})
    room = MAX_SMALL - good.size
    fits = put(claims, b"x", annotations={"a": "y" * room})
    large = put(claims, b"z", annotations={"a": "y" * (room + 1)})
    assert (fits.size, large.size) == (65536, 65537)
    claims.listed = (large, fits)
    found = Referrers(claims, SUBJECT.digest, KIND)
    assert list(found.blobs()) == [b"x"]
    assert found.faults == [f"referrer {large.digest}: is larger than 65536 bytes"]
    assert large.digest not in claims.asked


def test_what_is_listed_and_is_something_else(claims: Claims) -> None:
    other = msgspec.structs.replace(SUBJECT, digest=Digest.of(b"other"))
    kind = put(claims, b"a", artifact_type="application/y")
    lost = put(claims, b"b", subject=None)
    elsewhere = put(claims, b"c", subject=other)
    gone = msgspec.structs.replace(SUBJECT, digest=Digest.of(b"gone"))
    good = put(claims, b"good")
    claims.listed = (kind, lost, elsewhere, gone, good)
    found = Referrers(claims, SUBJECT.digest, KIND)
    assert list(found.blobs()) == [b"good"]
    assert found.faults == [
        f"referrer {kind.digest}: is of type 'application/y'",
        f"referrer {lost.digest}: refers to something else",
        f"referrer {elsewhere.digest}: refers to something else",
        f"memory: no manifest {gone.digest}",
    ]
    assert found.broken is None


def test_other_bytes_than_the_digest_says(claims: Claims) -> None:
    good, bad = put(claims, b"good"), put(claims, b"bad")

    class Swaps(Claims):
        def manifest(self, reference: str) -> tuple[Descriptor, bytes]:
            return bad, super().manifest(str(good.digest))[1]

    swaps = Swaps(blobs=claims.blobs, types=claims.types)
    swaps.listed = (bad,)
    found = Referrers(swaps, SUBJECT.digest, KIND)
    assert list(found.blobs()) == []
    assert found.faults == [
        f"referrer {bad.digest}: digest is {good.digest}, expected {bad.digest}"
    ]


def test_a_type_that_the_bytes_do_not_say(claims: Claims) -> None:
    good = put(claims, b"good")

    class Relabels(Claims):
        def manifest(self, reference: str) -> tuple[Descriptor, bytes]:
            descriptor, data = super().manifest(reference)
            return msgspec.structs.replace(descriptor, media_type="application/z"), data

    relabels = Relabels(blobs=claims.blobs, types=claims.types)
    relabels.listed = (good,)
    found = Referrers(relabels, SUBJECT.digest, KIND)
    assert list(found.blobs()) == []
    assert "served as 'application/z'" in found.faults[0]


def test_a_blob_that_is_not_there(claims: Claims) -> None:
    lost, good = put(claims, b"lost"), put(claims, b"good")
    del claims.blobs[Digest.of(b"lost")]
    claims.listed = (lost, good)
    found = Referrers(claims, SUBJECT.digest, KIND)
    assert list(found.blobs()) == [b"good"]
    assert found.faults == [f"memory: blob {Digest.of(b'lost')} is not there"]
    assert found.broken is None


def test_the_first_broken_transfer_is_kept(claims: Claims) -> None:
    first, second, third = put(claims, b"1"), put(claims, b"2"), put(claims, b"3")
    claims.listed = (first, second, third)
    claims.broken = frozenset({first.digest, Digest.of(b"2")})
    found = Referrers(claims, SUBJECT.digest, KIND)
    assert list(found.blobs()) == [b"3"]
    assert found.faults == [f"reset at {first.digest}", f"reset at {Digest.of(b'2')}"]
    assert isinstance(found.broken, TransferError)
    assert found.broken.message == f"reset at {first.digest}"
    claims.broken = frozenset({Digest.of(b"2")})
    found = Referrers(claims, SUBJECT.digest, KIND)
    assert list(found.blobs()) == [b"1", b"3"]
    assert found.broken is not None
    assert found.broken.message == f"reset at {Digest.of(b'2')}"


def test_a_list_that_cannot_be_had_is_an_error(claims: Claims) -> None:
    class Breaks(Claims):
        def referrers(self, _digest: Digest, *, artifact_type: str = "") -> tuple[Descriptor, ...]:
            raise TransferError("reset")

    with pytest.raises(TransferError):
        list(Referrers(Breaks(), SUBJECT.digest, KIND).blobs())


def test_an_artifact_is_stored_with_all_it_names(repository: MemoryRepository) -> None:
    stored = put(repository, b"one", b"two")
    for digest in (EMPTY_DESCRIPTOR.digest, Digest.of(b"one"), Digest.of(b"two"), stored.digest):
        assert repository.has_blob(digest)
    made = Artifact(Manifest(media_type=MANIFEST, config=EMPTY_DESCRIPTOR, layers=()), ())
    assert made.descriptor == Descriptor(
        media_type=MANIFEST, digest=Digest.of(made.data), size=len(made.data)
    )
    assert made.store(repository, tag="t") == made.descriptor
    assert repository.tags() == ("t",)
    with pytest.raises(ValueError, match="zip"):
        Artifact(made.manifest, (b"too many",)).store(repository)
    with pytest.raises(MissingError):
        repository.resolve("other")
