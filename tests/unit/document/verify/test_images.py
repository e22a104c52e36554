"""The images behind a verified manifest: wrong digest, size, layer, root hash, signatures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from changed import replace
from machineos.core.digest import Digest
from machineos.core.word import RootHash
from machineos.document.model.install import Target
from machineos.document.model.limits import MAX_SMALL
from machineos.document.product import artifacts
from machineos.document.product.artifacts import LAYER_DIGEST, LAYER_ROOT_HASH
from machineos.document.rules.images import check_image
from machineos.document.verify.images import (
    VerifiedImage,
    read_config,
    require_signatures,
    root_hash_signatures,
    verify_image,
    verify_target,
)
from machineos.document.verify.published import VerifiedInstall, fetch_verified
from machineos.errors import (
    DigestError,
    DocumentError,
    MachineOSError,
    MissingError,
    OrderError,
    SignatureError,
    TransferError,
    VerificationError,
)
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.atomfs import NEW_ROOT_HASH, OLD_ROOT_HASH, root_hash_of
from machineos.oci.model.documents import (
    EMPTY_DESCRIPTOR,
    MANIFEST,
    Descriptor,
    Manifest,
    parse_manifest,
)
from unit.document.conftest import NOW, PRODUCT, Authority, World, put_image

Repository = Any  # what only has the few methods that a case needs


@pytest.fixture
def published(published_world: World) -> VerifiedInstall:
    world = published_world
    return fetch_verified(
        world.registry.repository("machine/install"),
        "1.0.0",
        ca_pem=world.authority.pem,
        at=NOW,
        product=PRODUCT,
    ).verified


@pytest.fixture
def store(published_world: World) -> LayoutRepository:
    return published_world.registry.repository("mos")


@pytest.fixture
def target(published: VerifiedInstall) -> Target:
    return published.install.targets[0]


def test_a_published_target(store: LayoutRepository, target: Target) -> None:
    manifest = verify_target(store, target)
    assert len(manifest.layers) == 1
    assert Digest.of(manifest.to_bytes()) == target.image


def test_a_wrong_digest(store: LayoutRepository, target: Target) -> None:
    wrong = msgspec.structs.replace(target, digest=f"sha256:{'0' * 64}")
    with pytest.raises(MissingError):
        verify_target(store, wrong)


@pytest.mark.parametrize("size", [1, 2**31])
def test_a_wrong_size(store: LayoutRepository, target: Target, size: int) -> None:
    with pytest.raises(DigestError, match=f"image of zot: {target.size} bytes, the manifest says"):
        verify_target(store, msgspec.structs.replace(target, size=size))


def test_a_flipped_bit_in_the_image_manifest(store: LayoutRepository, target: Target) -> None:
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


def test_other_bytes_of_the_same_size(store: LayoutRepository, target: Target) -> None:
    """Whatever a repository promises: what was signed is what the bytes are compared with."""

    class Swaps:
        def manifest(self, reference: str) -> tuple[Descriptor, bytes]:
            descriptor, data = store.manifest(reference)
            return descriptor, data.replace(b"squashfs", b"squashfz")

    swaps: Repository = Swaps()
    with pytest.raises(DigestError, match="image of zot: digest is"):
        verify_target(swaps, target)


def test_a_manifest_under_another_type(store: LayoutRepository, target: Target) -> None:
    """The type that the repository gives has to agree with the bytes."""

    class Relabels:
        def manifest(self, reference: str) -> tuple[Descriptor, bytes]:
            descriptor, data = store.manifest(reference)
            return msgspec.structs.replace(descriptor, media_type="application/x"), data

    relabels: Repository = Relabels()
    with pytest.raises(DocumentError, match="served as 'application/x'"):
        verify_target(relabels, target)


Change = Callable[[Manifest], Manifest]


def changed(store: LayoutRepository, target: Target, change: Change) -> Target:
    """Store the image with other layers and return a target that names it."""
    _, data = store.manifest(target.digest)
    manifest = change(parse_manifest(data, name="image"))
    found = store.put_manifest(manifest.to_bytes(), media_type=MANIFEST)
    return msgspec.structs.replace(target, digest=str(found.digest), size=found.size)


def layer(manifest: Manifest, **changes: object) -> Manifest:
    first = msgspec.structs.replace(manifest.layers[0], **changes)
    return msgspec.structs.replace(manifest, layers=(first, *manifest.layers[1:]))


def notes(manifest: Manifest, **values: str) -> Manifest:
    return layer(manifest, annotations={NEW_ROOT_HASH: "a" * 64, OLD_ROOT_HASH: "a" * 64} | values)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda m: msgspec.structs.replace(m, layers=()), "image-layers"),
        (lambda m: msgspec.structs.replace(m, layers=m.layers * 2), "image-layers"),
        (
            lambda m: layer(m, media_type="application/vnd.oci.image.layer.v1.tar+gzip"),
            "image-layer-type",
        ),
        (
            lambda m: layer(m, media_type="application/vnd.stacker.image.layer.ext4"),
            "image-layer-type",
        ),
        (lambda m: layer(m, annotations={}), "image-root-hash"),
        (lambda m: notes(m, **{OLD_ROOT_HASH: "b" * 64}), "image-root-hash"),
        (
            lambda m: notes(m, **{OLD_ROOT_HASH: "0" * 64, NEW_ROOT_HASH: "0" * 64}),
            "image-root-hash",
        ),
        (
            lambda m: notes(m, **{OLD_ROOT_HASH: "A" * 64, NEW_ROOT_HASH: "A" * 64}),
            "image-root-hash",
        ),
        (lambda m: msgspec.structs.replace(m, config=EMPTY_DESCRIPTOR), "image-config"),
    ],
    ids=["none", "two", "tar", "unknown", "no-hash", "two-hashes", "zero", "upper", "artifact"],
)
def test_layers_that_cannot_be_trusted(
    store: LayoutRepository, target: Target, change: Change, rule: str
) -> None:
    with pytest.raises(VerificationError, match="image of zot: ") as caught:
        verify_target(store, changed(store, target, change))
    assert caught.value.rule == rule


def test_an_image_is_checked_before_it_is_signed_as_well(
    store: LayoutRepository, target: Target
) -> None:
    manifest = verify_target(store, target)
    check_image(manifest, "it", "zot")
    twice = msgspec.structs.replace(manifest, layers=manifest.layers * 2)
    with pytest.raises(VerificationError, match="it: has 2 layers"):
        check_image(twice, "it", "zot")


# -- root hash signatures


def attach(
    store: LayoutRepository, target: Target, *entries: tuple[Descriptor, bytes], **changes: object
) -> None:
    values: dict[str, Any] = {
        "media_type": MANIFEST,
        "artifact_type": artifacts.ROOT_HASH_SIGNATURE,
        "config": EMPTY_DESCRIPTOR,
        "layers": tuple(entry for entry, _ in entries),
        "subject": store.resolve(target.digest),
        **changes,
    }
    manifest = Manifest(**values)
    artifacts.Artifact(manifest, tuple(blob for _, blob in entries)).store(store)


def entry(blob: bytes, layer: Descriptor | None, **changes: object) -> tuple[Descriptor, bytes]:
    annotations = (
        {LAYER_DIGEST: str(layer.digest), LAYER_ROOT_HASH: str(root_hash_of(layer))}
        if layer
        else {}
    )
    values: dict[str, Any] = {
        "media_type": artifacts.PKCS7,
        "annotations": annotations,
        **changes,
    }
    return Descriptor(digest=Digest.of(blob), size=len(blob), **values), blob


def test_an_image_as_a_machine_takes_it(
    store: LayoutRepository, target: Target, published: VerifiedInstall
) -> None:
    image = verify_image(store, target, published.publisher)
    assert image.target == target
    assert image.manifest == verify_target(store, target)
    assert image.name == "image of zot"
    assert image.config == image.manifest.config
    assert image.layers == image.manifest.layers
    signatures = root_hash_signatures(store, target, image.manifest, published.publisher)
    assert signatures == image.signatures
    assert set(signatures) == {layer.digest for layer in image.layers}


def test_nobody_else_makes_a_verified_image(
    store: LayoutRepository, target: Target, published: VerifiedInstall
) -> None:
    image = verify_image(store, target, published.publisher)
    with pytest.raises(OrderError) as caught:
        VerifiedImage(target, image.manifest, image.signatures)
    assert caught.value.message == (
        "a VerifiedImage is made by verify_image alone, which checks it first"
    )
    with pytest.raises(OrderError):
        replace(image, signatures={})


def test_an_image_that_nobody_signed_is_refused(
    store: LayoutRepository, target: Target, published: VerifiedInstall, stranger: Authority
) -> None:
    lonely = changed(store, target, lambda m: notes(m))
    with pytest.raises(SignatureError, match="image of zot: nobody signed the root hash of layer"):
        verify_image(store, lonely, published.publisher)
    # A stranger's signature changes nothing, the publisher's does.
    first = verify_target(store, lonely).layers[0]
    attach(store, lonely, entry(stranger.publisher.sign_root_hash(RootHash("a" * 64)), first))
    with pytest.raises(SignatureError, match=str(first.digest)):
        verify_image(store, lonely, published.publisher)


def test_signatures_are_required_for_every_layer(store: LayoutRepository, target: Target) -> None:
    manifest = verify_target(store, target)
    require_signatures(manifest, {manifest.layers[0].digest: b"p7s"}, "it")
    with pytest.raises(SignatureError, match="it: nobody signed"):
        require_signatures(manifest, {Digest.of(b"other"): b"p7s"}, "it")


def test_strangers_signatures_are_left_out(
    store: LayoutRepository, target: Target, published: VerifiedInstall, stranger: Authority
) -> None:
    manifest = verify_target(store, target)
    before = root_hash_signatures(store, target, manifest, published.publisher)
    first = manifest.layers[0]
    theirs = stranger.publisher.sign_root_hash(root_hash_of(first))
    attach(store, target, entry(theirs, first))
    assert root_hash_signatures(store, target, manifest, published.publisher) == before
    assert set(before) == {first.digest}


def test_what_does_not_fit_is_no_candidate(
    store: LayoutRepository, target: Target, published: VerifiedInstall
) -> None:
    """Each would be the publisher's signature, if it were taken for what it is not."""
    bare = changed(store, target, lambda m: notes(m))
    manifest = verify_target(store, bare)
    first = manifest.layers[0]
    ours = root_hash_signatures(store, target, verify_target(store, target), published.publisher)
    good = {LAYER_DIGEST: str(first.digest), LAYER_ROOT_HASH: "a" * 64}
    (signature,) = ours.values()
    attach(store, bare, entry(signature, None))
    attach(store, bare, entry(signature, first))  # of another root hash
    for name, value in (
        (LAYER_DIGEST, "sha256:../.."),
        (LAYER_DIGEST, str(Digest.of(b"other layer"))),
        (LAYER_ROOT_HASH, "0" * 64),
        (LAYER_ROOT_HASH, ""),
    ):
        attach(store, bare, entry(signature, first, annotations=good | {name: value}))
    attach(store, bare, entry(b"x" * (MAX_SMALL + 1), first))
    assert root_hash_signatures(store, bare, manifest, published.publisher) == {}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, True),
        ({"media_type": "text/plain"}, False),
        ({"annotations": {LAYER_ROOT_HASH: "a" * 64}}, False),
        ({"annotations": {}}, False),
    ],
)
def test_a_signature_says_of_what_it_is_one(
    store: LayoutRepository,
    target: Target,
    published: VerifiedInstall,
    published_world: World,
    change: dict[str, Any],
    found: bool,
) -> None:
    bare = changed(store, target, lambda m: notes(m))
    manifest = verify_target(store, bare)
    ours = published_world.authority.publisher.sign_root_hash(RootHash("a" * 64))
    attach(store, bare, entry(ours, manifest.layers[0], **change))
    expected = {manifest.layers[0].digest: ours} if found else {}
    assert root_hash_signatures(store, bare, manifest, published.publisher) == expected


def test_a_good_signature_in_a_bad_wrapping_does_not_stand_before_the_good_one(
    store: LayoutRepository, target: Target, published: VerifiedInstall
) -> None:
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


class Counts:
    """A repository that counts the blobs that are asked for."""

    def __init__(self, inner: LayoutRepository) -> None:
        self._inner = inner
        self.requests = 0

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (whatever the inner one has)
        return getattr(self._inner, name)

    def blob(self, descriptor: Descriptor, *, limit: int) -> bytes:
        self.requests += 1
        return self._inner.blob(descriptor, limit=limit)


def test_requests_are_bounded_whatever_an_artifact_lists(
    store: LayoutRepository, target: Target, published: VerifiedInstall
) -> None:
    manifest = verify_target(store, target)
    noise = [entry(b"noise %d" % number, manifest.layers[0]) for number in range(60)]
    attach(store, target, *noise)
    counts: Repository = Counts(store)
    found = root_hash_signatures(counts, target, manifest, published.publisher)
    assert set(found) == {manifest.layers[0].digest}
    assert counts.requests <= 2


def test_what_is_found_is_not_asked_for_again(
    store: LayoutRepository, target: Target, published: VerifiedInstall
) -> None:
    manifest = verify_target(store, target)
    ours = root_hash_signatures(store, target, manifest, published.publisher)
    (signature,) = ours.values()
    for number in range(5):
        attach(store, target, entry(signature, manifest.layers[0]), annotations={"n": str(number)})
    counts: Repository = Counts(store)
    assert root_hash_signatures(counts, target, manifest, published.publisher) == ours
    assert counts.requests == 1


class Breaks(Counts):
    """A repository that cannot give one blob, or none."""

    broken: tuple[bytes, ...] = ()

    def blob(self, descriptor: Descriptor, *, limit: int) -> bytes:
        if not self.broken or descriptor.digest in {Digest.of(blob) for blob in self.broken}:
            raise TransferError("connection reset")
        return super().blob(descriptor, limit=limit)


def test_a_broken_transfer_does_not_matter_when_all_is_found(
    store: LayoutRepository, target: Target, published: VerifiedInstall
) -> None:
    manifest = verify_target(store, target)
    ours = root_hash_signatures(store, target, manifest, published.publisher)
    (good,) = store.referrers(target.image)
    # The broken one comes before the good one, or it would not be asked for.
    for number in range(100):
        attach(store, target, entry(b"broken", manifest.layers[0]), annotations={"n": str(number)})
        if store.referrers(target.image)[0].digest != good.digest:
            break
    breaks = Breaks(store)
    breaks.broken = (b"broken",)
    repository: Repository = breaks
    assert root_hash_signatures(repository, target, manifest, published.publisher) == ours
    assert breaks.requests == 1


def test_a_broken_transfer_matters_when_something_is_missing(
    store: LayoutRepository, target: Target, published: VerifiedInstall
) -> None:
    breaks: Repository = Breaks(store)
    with pytest.raises(TransferError, match="connection reset"):
        root_hash_signatures(breaks, target, verify_target(store, target), published.publisher)


# -- configurations


def test_the_configuration_of_a_container_is_read(store: LayoutRepository, target: Target) -> None:
    config = read_config(store, verify_target(store, target), "image of zot")
    assert config.argv == ("/run",)


def test_a_configuration_that_cannot_run_names_its_image(world: World) -> None:
    images = LayoutRepository(world.images, writable=True)
    found = put_image(images, "bad", run={"Entrypoint": None})
    manifest = parse_manifest(images.manifest(str(found.digest))[1], name="bad")
    with pytest.raises(DocumentError) as caught:
        read_config(images, manifest, "image of bad")
    assert caught.value.name == "configuration of the image of bad"
    assert [fault.rule for fault in caught.value.faults] == ["config-command"]


def test_a_large_configuration_is_not_read(store: LayoutRepository, target: Target) -> None:
    manifest = verify_target(store, target)
    large = msgspec.structs.replace(manifest.config, size=(1 << 20) + 1)
    with pytest.raises(VerificationError, match="at most 1048576"):
        read_config(store, msgspec.structs.replace(manifest, config=large), "it")
