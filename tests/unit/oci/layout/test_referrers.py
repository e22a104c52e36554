"""Referrers in layouts, as others write them and look for them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from fakes import regctl
from machineos.core.digest import Digest
from machineos.errors import DigestError, MissingError
from machineos.oci.graph.copy import copy_graph
from machineos.oci.layout.folder import LayoutRegistry, LayoutRepository
from machineos.oci.model.documents import INDEX, REF_NAME, Descriptor, parse_index
from machineos.oci.model.referrers import fallback_tag
from unit.oci.samples import SIGNATURE, put_artifact, put_bytes, put_image

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.oci.model.repository import Repository


@pytest.fixture
def signed(tmp_path: Path) -> LayoutRepository:
    """An image with two signatures, as ``mosb manifest publish`` writes it."""
    repository = LayoutRegistry(tmp_path / "ours", writable=True).repository("a/b")
    image = put_image(repository, "1.0")
    for text in (b"one", b"two"):
        put_artifact(repository, image.root, text)
    return repository


def digests(repository: Repository, tag: str = "1.0") -> list[Digest]:
    return [entry.digest for entry in repository.referrers(repository.resolve(tag).digest)]


@pytest.mark.works("its layouts with what refers to an image, as recorded of 0.11", "regctl")
def test_a_layout_of_regctl_has_them(signed: LayoutRepository, tmp_path: Path) -> None:
    regctl.write(signed, "1.0", tmp_path / "theirs")
    theirs = LayoutRepository(tmp_path / "theirs", writable=True)
    assert digests(theirs) == digests(signed)
    subject = theirs.resolve("1.0").digest
    assert len(theirs.referrers(subject, artifact_type=SIGNATURE)) == 2
    assert theirs.referrers(subject, artifact_type="other") == ()
    sink = LayoutRegistry(tmp_path / "copy", writable=True).repository("c")
    copy_graph(theirs, sink, "1.0", tag="1.0", referrers=True)
    assert digests(sink) == digests(signed)


@pytest.mark.works("what refers to an image is in our layouts where it looks", "regctl")
def test_regctl_finds_them_in_ours(signed: LayoutRepository) -> None:
    subject = signed.resolve("1.0").digest
    descriptor, data = signed.manifest(fallback_tag(subject))
    assert descriptor.media_type == INDEX
    listed = parse_index(data, name="list").manifests
    assert sorted(listed, key=lambda entry: entry.digest) == list(signed.referrers(subject))
    # And zot and oras as before, each by an entry of its own.
    plain = [entry.digest for entry in signed.entries() if REF_NAME not in entry.annotations]
    assert sorted(plain) == digests(signed)


def test_a_list_takes_the_place_of_the_one_before(signed: LayoutRepository) -> None:
    tag = fallback_tag(signed.resolve("1.0").digest)
    assert [entry.media_type for entry in signed.entries()].count(INDEX) == 1
    before = (signed.path / "index.json").read_bytes()
    root = signed.resolve("1.0")
    put_artifact(signed, root, b"one")
    assert (signed.path / "index.json").read_bytes() == before
    put_artifact(signed, root, b"three")
    assert [entry.media_type for entry in signed.entries()].count(INDEX) == 1
    assert len(parse_index(signed.manifest(tag)[1], name="list").manifests) == 3


def test_what_others_listed_stays(signed: LayoutRepository, tmp_path: Path) -> None:
    regctl.write(signed, "1.0", tmp_path / "theirs/x")
    theirs = LayoutRegistry(tmp_path / "theirs", writable=True).repository("x")
    put_artifact(theirs, theirs.resolve("1.0"), b"three")
    tag = fallback_tag(theirs.resolve("1.0").digest)
    assert len(parse_index(theirs.manifest(tag)[1], name="list").manifests) == 3
    assert len(digests(theirs)) == 3


@pytest.mark.parametrize("damage", ["gone", "no index", "lies"])
def test_a_damaged_list_hides_nothing_else(
    signed: LayoutRepository, tmp_path: Path, damage: str
) -> None:
    tag = fallback_tag(signed.resolve("1.0").digest)
    if damage == "gone":
        signed.blob_path(signed.resolve(tag).digest).unlink()
    elif damage == "no index":
        index = json.loads((signed.path / "index.json").read_text())
        for entry in index["manifests"]:
            if (entry.get("annotations") or {}).get(REF_NAME) == tag:
                entry["mediaType"] = signed.resolve("1.0").media_type
        (signed.path / "index.json").write_text(json.dumps(index))
    else:  # it lists what refers to something else
        other = put_image(signed, "2.0", (b"other",))
        lie = put_artifact(signed, other.root, b"of another")
        assert lie.digest not in digests(signed)
    assert len(digests(signed)) == 2


def test_a_layout_that_is_no_registry_of_ours_gets_no_such_tag(tmp_path: Path) -> None:
    """The store of a machine: nobody copies it with other tools."""
    store = LayoutRepository(tmp_path, writable=True)
    image = put_image(store, "1.0")
    put_artifact(store, image.root, b"signed")
    assert store.tags() == ("1.0",)
    assert len(digests(store)) == 1


# -- links


@pytest.fixture
def linked(signed: LayoutRepository, tmp_path: Path) -> Path:
    """The same layout as Bazel shows it: each file is a link to somewhere else."""
    for path in signed.path.rglob("*"):
        target = tmp_path / "linked" / path.relative_to(signed.path)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)
    return tmp_path / "linked"


def test_files_of_a_layout_may_be_links_where_the_user_names_it(linked: Path) -> None:
    image = LayoutRepository(linked, links=True)
    assert len(digests(image)) == 2
    layer = put_bytes(image_writer(linked), b"x")  # of a writer that never follows one
    assert image.blob(layer, limit=1) == b"x"
    assert image.has_blob(layer.digest)
    assert image.holds_blob(layer)
    with pytest.raises(MissingError):
        image.resolve("3.0")


def image_writer(folder: Path) -> LayoutRepository:
    """Open a layout for writing, which does not follow links."""
    return LayoutRepository(folder, writable=True)


@pytest.mark.parametrize("target", ["/dev/zero", "/dev/null", "/proc", "/nonexistent", "loop"])
def test_a_link_to_what_is_no_file_is_refused(linked: Path, target: str) -> None:
    image = LayoutRepository(linked, links=True)
    layer = Descriptor(media_type="x", digest=Digest.of(b"0"), size=1)
    path = image.blob_path(layer.digest)
    path.symlink_to(path if target == "loop" else target)
    with pytest.raises((DigestError, MissingError)):
        image.blob(layer, limit=1)


def test_a_link_to_another_file_shows_nothing_of_it(linked: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"s")
    image = LayoutRepository(linked, links=True)
    layer = Descriptor(media_type="x", digest=Digest.of(b"0"), size=1)
    image.blob_path(layer.digest).symlink_to(secret)
    with pytest.raises(DigestError):
        image.blob(layer, limit=1)
