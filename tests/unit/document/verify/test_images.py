"""The images behind a verified manifest: wrong digest, size, layer, root hash, signatures."""

from __future__ import annotations

import msgspec
import pytest

from machineos.core.digest import Digest
from machineos.document.product import artifacts
from machineos.document.product.artifacts import LAYER_DIGEST, LAYER_ROOT_HASH
from machineos.document.verify.images import root_hash_signatures, signed_by, verify_target
from machineos.document.verify.published import fetch_verified
from machineos.errors import DigestError, MachineOSError, MissingError, VerificationError
from machineos.oci.model.atomfs import NEW_ROOT_HASH, OLD_ROOT_HASH, root_hash_of
from machineos.oci.model.documents import MANIFEST, Descriptor, Manifest, parse_manifest
from unit.document.conftest import NOW, PRODUCT


@pytest.fixture
def published(published_world):
    world = published_world
    return fetch_verified(
        world.registry.repository("machine/install"),
        "1.0.0",
        ca_pem=world.authority.pem,
        at=NOW,
        product=PRODUCT,
    ).verified


@pytest.fixture
def store(published_world):
    return published_world.registry.repository("mos")


@pytest.fixture
def target(published):
    return published.install.targets[0]


def test_a_published_target(store, target):
    manifest = verify_target(store, target)
    assert len(manifest.layers) == 2
    assert Digest.of(manifest.to_bytes()) == target.image


def test_a_wrong_digest(store, target):
    wrong = msgspec.structs.replace(target, digest=f"sha256:{'0' * 64}")
    with pytest.raises(MissingError):
        verify_target(store, wrong)


@pytest.mark.parametrize("size", [1, 2**31])
def test_a_wrong_size(store, target, size):
    with pytest.raises(DigestError, match="manifest says"):
        verify_target(store, msgspec.structs.replace(target, size=size))


def test_a_flipped_bit_in_the_image_manifest(store, target):
    path = store.blob_path(target.image)
    good = path.read_bytes()
    for place in range(0, len(good), 97):
        bad = bytearray(good)
        bad[place] ^= 4
        path.write_bytes(bytes(bad))
        with pytest.raises(MachineOSError):
            verify_target(store, target)
    path.write_bytes(good)
    verify_target(store, target)


def test_other_bytes_of_the_same_size(store, target):
    """Whatever a repository promises: what was signed is what the bytes are compared with."""

    class Swaps:
        def manifest(self, reference):
            descriptor, data = store.manifest(reference)
            return descriptor, data.replace(b"squashfs", b"squashfz")

    with pytest.raises(DigestError, match="image of zot: digest is"):
        verify_target(Swaps(), target)


def changed(store, target, change):
    """Store the image with other layers and return a target that names it."""
    _, data = store.manifest(target.digest)
    manifest = change(parse_manifest(data, name="image"))
    found = store.put_manifest(manifest.to_bytes(), media_type=MANIFEST)
    return msgspec.structs.replace(target, digest=str(found.digest), size=found.size)


def layer(manifest: Manifest, **changes) -> Manifest:
    first = msgspec.structs.replace(manifest.layers[0], **changes)
    return msgspec.structs.replace(manifest, layers=(first, *manifest.layers[1:]))


def notes(manifest: Manifest, **values: str) -> Manifest:
    return layer(manifest, annotations={NEW_ROOT_HASH: "a" * 64, OLD_ROOT_HASH: "a" * 64} | values)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: msgspec.structs.replace(m, layers=()),
        lambda m: layer(m, media_type="application/vnd.oci.image.layer.v1.tar+gzip"),
        lambda m: layer(m, media_type="application/vnd.stacker.image.layer.ext4"),
        lambda m: layer(m, annotations={}),
        lambda m: notes(m, **{OLD_ROOT_HASH: "b" * 64}),
        lambda m: notes(m, **{OLD_ROOT_HASH: "0" * 64, NEW_ROOT_HASH: "0" * 64}),
        lambda m: notes(m, **{OLD_ROOT_HASH: "A" * 64, NEW_ROOT_HASH: "A" * 64}),
        lambda m: msgspec.structs.replace(m, config=artifacts.EMPTY_DESCRIPTOR),
    ],
    ids=["none", "tar", "unknown", "no-hash", "two-hashes", "zero", "upper", "artifact"],
)
def test_layers_that_cannot_be_trusted(store, target, change):
    with pytest.raises(VerificationError):
        verify_target(store, changed(store, target, change))


# -- root hash signatures


def attach(store, target, *entries: tuple[Descriptor, bytes], **changes) -> None:
    values = {
        "media_type": MANIFEST,
        "artifact_type": artifacts.ROOT_HASH_SIGNATURE,
        "config": artifacts.EMPTY_DESCRIPTOR,
        "layers": tuple(entry for entry, _ in entries),
        "subject": store.resolve(target.digest),
        **changes,
    }
    manifest = Manifest(**values)
    artifacts.Artifact(manifest, tuple(blob for _, blob in entries)).store(store)


def entry(blob: bytes, layer: Descriptor | None, **changes) -> tuple[Descriptor, bytes]:
    annotations = (
        {LAYER_DIGEST: str(layer.digest), LAYER_ROOT_HASH: root_hash_of(layer)} if layer else {}
    )
    values = {"media_type": artifacts.PKCS7, "annotations": annotations, **changes}
    return Descriptor(digest=Digest.of(blob), size=len(blob), **values), blob


def test_strangers_signatures_are_left_out(store, target, published, stranger):
    manifest = verify_target(store, target)
    before = root_hash_signatures(store, target, manifest, published.publisher)
    first, second = manifest.layers
    theirs = stranger.publisher.sign_root_hash(root_hash_of(first))
    attach(store, target, entry(theirs, first))
    assert root_hash_signatures(store, target, manifest, published.publisher) == before
    assert not signed_by(theirs, first, published.publisher)
    ours = before[first.digest]
    assert signed_by(ours, first, published.publisher)
    assert not signed_by(ours, second, published.publisher)


def test_what_does_not_fit_is_no_candidate(store, target, published):
    manifest = verify_target(store, target)
    before = root_hash_signatures(store, target, manifest, published.publisher)
    first = manifest.layers[0]
    attach(store, target, entry(b"no annotations", None))
    attach(store, target, entry(b"other type", first, media_type="text/plain"))
    for name, value in (
        (LAYER_DIGEST, "sha256:../.."),
        (LAYER_DIGEST, str(Digest.of(b"other layer"))),
        (LAYER_ROOT_HASH, "0" * 64),
        (LAYER_ROOT_HASH, ""),
    ):
        wrong = {LAYER_DIGEST: str(first.digest), LAYER_ROOT_HASH: root_hash_of(first)}
        attach(store, target, entry(b"wrong note", first, annotations=wrong | {name: value}))
    attach(store, target, entry(b"x" * (artifacts.MAX_SMALL + 1), first))
    assert root_hash_signatures(store, target, manifest, published.publisher) == before


def test_a_good_signature_in_a_bad_wrapping_does_not_stand_before_the_good_one(
    store, target, published
):
    """The kernel refuses such ones, and whoever mounts takes what is found here."""
    manifest = verify_target(store, target)
    first = manifest.layers[0]
    ours = root_hash_signatures(store, target, manifest, published.publisher)[first.digest]
    for number in range(20):
        attach(store, target, entry(b"noise %d" % number, first))
        attach(store, target, entry(b"%d" % number + ours, first))
    listed = store.referrers(target.image, artifact_type=artifacts.ROOT_HASH_SIGNATURE)
    assert len(listed) > 40
    found = root_hash_signatures(store, target, manifest, published.publisher)
    assert found[first.digest] == ours


def test_any_other_bytes_around_a_good_signature(store, target, published):
    manifest = verify_target(store, target)
    layer = manifest.layers[0]
    ours = root_hash_signatures(store, target, manifest, published.publisher)[layer.digest]
    assert signed_by(ours, layer, published.publisher)
    for place in range(len(ours)):
        bad = bytearray(ours)
        bad[place] ^= 1 << place % 8
        assert not signed_by(bytes(bad), layer, published.publisher), place
    for other in (b"\0" + ours, ours + b"\0", ours[1:], ours[:-1], ours + ours, ours[-256:]):
        assert not signed_by(other, layer, published.publisher)


def test_requests_are_bounded_whatever_an_artifact_lists(store, target, published):
    manifest = verify_target(store, target)
    noise = [entry(b"noise %d" % number, manifest.layers[0]) for number in range(60)]
    attach(store, target, *noise)

    class Counts:
        requests = 0

        def __getattr__(self, name):
            return getattr(store, name)

        def blob(self, descriptor, *, limit):
            self.requests += 1
            return store.blob(descriptor, limit=limit)

    counts = Counts()
    found = root_hash_signatures(counts, target, manifest, published.publisher)
    assert all(found.values())
    assert counts.requests <= 2 * len(manifest.layers)


def test_an_image_without_signatures_has_none(store, target, published):
    lonely = changed(store, target, lambda m: msgspec.structs.replace(m, layers=m.layers[:1]))
    manifest = verify_target(store, lonely)
    assert root_hash_signatures(store, lonely, manifest, published.publisher) == {}


@pytest.mark.parametrize("blob", [b"", b"x", b"x" * 256, b"x" * 5000])
def test_signed_by_takes_any_bytes(store, target, published, blob):
    manifest = verify_target(store, target)
    assert signed_by(blob, manifest.layers[0], published.publisher) is False
