"""The contract of ``Repository``, for a folder, a registry with and without the referrers API."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from machineos.core.digest import Digest
from machineos.errors import (
    AuthError,
    DigestError,
    DocumentError,
    MachineOSError,
    MissingError,
)
from machineos.oci.graph.copy import copy_graph
from machineos.oci.model.documents import MANIFEST, Descriptor, parse_manifest
from unit.oci.samples import LAYER, SIGNATURE, put_artifact, put_bytes, put_image, put_index

if TYPE_CHECKING:
    from collections.abc import Iterator

    from machineos.oci.model.repository import Registry

BIG = bytes(range(256)) * 4096 * 3  # over several pieces of an upload


@pytest.mark.works("first push")
def test_the_first_push_into_a_repository_that_is_not_there(registry: Registry, name: str) -> None:
    repository = registry.repository(f"{name}/new")
    image = put_image(repository, "1.0")
    signature = put_artifact(repository, image.root, b"signed")
    assert repository.resolve("1.0") == image.root
    assert [entry.digest for entry in repository.referrers(image.root.digest)] == [signature.digest]


@pytest.mark.works("push, pull")
def test_a_stored_image_is_read_back(registry: Registry, name: str) -> None:
    repository = registry.repository(name)
    image = put_image(repository, "1.0", (b"one", BIG))
    descriptor, data = repository.manifest("1.0")
    assert descriptor == image.root == repository.resolve("1.0")
    assert repository.manifest(str(image.root.digest)) == (descriptor, data)
    assert parse_manifest(data, name="x").layers == image.layers
    assert repository.blob(image.layers[0], limit=3) == b"one"
    with repository.open_blob(image.layers[1]) as chunks:
        assert b"".join(chunks) == BIG
    assert repository.tags() == ("1.0",)


def test_an_empty_blob_is_a_blob(registry: Registry, name: str) -> None:
    repository = registry.repository(name)
    empty = put_bytes(repository, b"")
    assert repository.blob(empty, limit=0) == b""


def test_what_is_not_there_is_missing(registry: Registry, name: str) -> None:
    repository = registry.repository(name)
    put_image(repository)
    absent = Descriptor(media_type=LAYER, digest=Digest.of(b"absent"), size=6)
    assert not repository.has_blob(absent.digest)
    for call in (
        lambda: repository.resolve("2.0"),
        lambda: repository.manifest(str(absent.digest)),
        lambda: repository.blob(absent, limit=10),
    ):
        with pytest.raises(MissingError):
            call()


def test_nothing_refers_to_anything_where_there_is_nothing(registry: Registry, name: str) -> None:
    with suppress(AuthError):  # some tell nobody that it is not there
        assert registry.repository(name).referrers(Digest.of(b"absent")) == ()


def test_wrong_bytes_are_not_stored(registry: Registry, name: str) -> None:
    repository = registry.repository(name)
    put_bytes(repository, b"something")
    promised = Descriptor(media_type=LAYER, digest=Digest.of(b"right"), size=5)
    for wrong in (b"wrong", b"righ", b"right!", b""):
        with pytest.raises(DigestError):
            repository.put_blob(promised, (wrong,))
        assert not repository.has_blob(promised.digest)
    repository.put_blob(promised, (b"ri", b"", b"ght"))
    assert repository.has_blob(promised.digest)


def test_a_blob_that_is_there_is_not_read_again(registry: Registry, name: str) -> None:
    repository = registry.repository(name)
    blob = put_bytes(repository, b"once")

    class Untouchable:
        def __iter__(self) -> Iterator[bytes]:
            raise AssertionError("was read")

    repository.put_blob(blob, Untouchable())


def test_a_size_other_than_promised_is_refused(registry: Registry, name: str) -> None:
    repository = registry.repository(name)
    blob = put_bytes(repository, b"four")
    for size in (3, 5):
        wrong = Descriptor(media_type=LAYER, digest=blob.digest, size=size)
        with pytest.raises(DigestError):
            repository.blob(wrong, limit=100)


def test_a_blob_over_the_limit_is_refused(registry: Registry, name: str) -> None:
    repository = registry.repository(name)
    blob = put_bytes(repository, b"four")
    with pytest.raises(DocumentError, match="at most 3"):
        repository.blob(blob, limit=3)


@pytest.mark.works("move a tag")
def test_a_tag_moves(registry: Registry, name: str) -> None:
    repository = registry.repository(name)
    first = put_image(repository, "latest", (b"first",))
    second = put_image(repository, "latest", (b"second",))
    assert repository.resolve("latest") == second.root
    assert repository.resolve(str(first.root.digest)) == first.root
    assert repository.tags() == ("latest",)


def test_two_tags_of_one_manifest(registry: Registry, name: str) -> None:
    repository = registry.repository(name)
    image = put_image(repository, "a")
    put_image(repository, "b")
    assert repository.resolve("a") == repository.resolve("b") == image.root
    assert repository.tags() == ("a", "b")


@pytest.mark.works("referrers")
def test_referrers_by_type_in_a_fixed_order(registry: Registry, name: str) -> None:
    repository = registry.repository(name)
    image = put_image(repository)
    other = put_image(repository, "2.0", (b"other",))
    ours = [put_artifact(repository, image.root, f"s{number}".encode()) for number in range(5)]
    bom = put_artifact(repository, image.root, b"bom", "application/spdx+json")
    put_artifact(repository, other.root, b"not ours")
    found = repository.referrers(image.root.digest, artifact_type=SIGNATURE)
    assert [entry.digest for entry in found] == sorted(entry.digest for entry in ours)
    assert {entry.artifact_type for entry in found} == {SIGNATURE}
    assert sorted(entry.annotations["note"] for entry in found) == ["s0", "s1", "s2", "s3", "s4"]
    everything = repository.referrers(image.root.digest)
    assert {entry.digest for entry in everything} == {bom.digest, *(e.digest for e in ours)}


def test_storing_a_referrer_again_changes_nothing(registry: Registry, name: str) -> None:
    repository = registry.repository(name)
    image = put_image(repository)
    for _ in range(2):
        put_artifact(repository, image.root, b"same")
    assert len(repository.referrers(image.root.digest)) == 1
    assert repository.tags() == ("1.0",)


@pytest.mark.works("copy")
def test_copies_keep_digests(registry: Registry, name: str) -> None:
    source, sink = registry.repository(f"{name}/a"), registry.repository(f"{name}/b")
    root = put_index(source, "1.0", "amd64", "arm64")
    signature = put_artifact(source, root, b"signed")
    assert copy_graph(source, sink, "1.0", tag="new", referrers=True) == root
    assert sink.resolve("new") == root
    assert [entry.digest for entry in sink.referrers(root.digest)] == [signature.digest]
    assert sink.manifest("new")[1] == source.manifest("1.0")[1]


BAD_NAMES = ("", "../x", "a/../b", "A", "a//b", "/a", "a/", "a\0b", "a" * 256, "sha256:../..", "ä")
BAD_REFERENCES = (
    "../x",
    "sha256:../../../etc/passwd",
    "sha256:" + "A" * 64,
    "sha256:" + "a" * 63,
    "sha256:",
    "md5:" + "a" * 32,
    "sha256:" + "a" * 4096,
    "a\0b",
    "a" * 4096,
    "a?b",
    "",
)


def test_hostile_names_are_refused(registry: Registry, name: str) -> None:
    for bad in BAD_NAMES:
        with pytest.raises(DocumentError):
            registry.repository(bad)
    repository = registry.repository(name)
    image = put_image(repository)
    data = repository.manifest("1.0")[1]
    for bad in BAD_REFERENCES:
        with pytest.raises(MachineOSError):
            repository.manifest(bad)
        with pytest.raises(MachineOSError):
            repository.put_manifest(data, media_type=MANIFEST, tag=bad)
    assert repository.resolve("1.0") == image.root
    assert repository.tags() == ("1.0",)
