"""What publishing decides: which image, of which version and time, converted by whom; nothing else.

All in memory: no disk is touched before a plan is written.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from changed import replace
from fakes.layers import AnyLayer, layer_content
from fakes.repository import MemoryRepository
from machineos.build.publish.plan import (
    BOOTKIT_VERSION,
    Defaults,
    Plan,
    Publishing,
    prepare,
    with_defaults,
)
from machineos.build.publish.source import ImageTarget, Source
from machineos.core.digest import Digest
from machineos.core.word import RootHash
from machineos.document.model.image import MACHINE
from machineos.document.model.install import Mount, Network, Storage, UpdateType
from machineos.errors import (
    DigestError,
    DocumentError,
    MissingError,
    PolicyError,
    SignatureError,
    VerificationError,
)
from machineos.oci.model.atomfs import root_hash_annotations
from machineos.oci.model.documents import (
    CONFIG,
    DOCKER_CONFIG,
    INDEX,
    MANIFEST,
    Descriptor,
    Index,
    Manifest,
)
from machineos.oci.model.reference import ImageSource
from machineos.oci.model.repository import Repository
from unit.document.conftest import NOW, OTHER_PRODUCT, PRODUCT, the_authority

SQUASHFS = "application/vnd.stacker.image.layer.squashfs+zstd+verity"
VERSION = "org.opencontainers.image.version"
TAR = "application/vnd.oci.image.layer.v1.tar"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def image(
    repository: MemoryRepository,
    tag: str,
    *contents: bytes,
    kind: str = SQUASHFS,
    config_type: str = CONFIG,
    created: object = "2025-05-05T05:05:05Z",
    annotations: dict[str, str] | None = None,
    run: dict[str, object] | None = None,
    raw: bool = False,
) -> Descriptor:
    """Store an image; ``run`` changes what its configuration says about running.

    The contents are notes in layers with the head of a file system, unless they are ``raw``.
    """
    body = {"config": {"Entrypoint": ["/run"], **(run or {})}, "created": created}
    config = msgspec.json.encode(body)
    layers = []
    for note in contents or (tag.encode(),):
        content = note if raw else layer_content(note)
        notes = root_hash_annotations(RootHash(Digest.of(b"root" + content).hex))
        layers.append(
            Descriptor(
                media_type=kind, digest=Digest.of(content), size=len(content), annotations=notes
            )
        )
        repository.put_blob(layers[-1], [content])
    entry = Descriptor(media_type=config_type, digest=Digest.of(config), size=len(config))
    repository.put_blob(entry, [config])
    made = Manifest(
        media_type=MANIFEST, config=entry, layers=tuple(layers), annotations=annotations or {}
    )
    return repository.put_manifest(made.to_bytes(), media_type=MANIFEST, tag=tag)


@pytest.fixture
def images() -> MemoryRepository:
    made = MemoryRepository("images")
    image(made, "zot")
    image(made, "hostfs", run={"Labels": {VERSION: "v0.1.0"}}, created="2025-06-06T06:06:06Z")
    image(made, "bootkit", b"boot files", b"modules", created="2024-01-01T00:00:00Z")
    return made


def wanted(name: str = "zot", **changes: object) -> ImageTarget:
    values: dict[str, Any] = {
        "service_name": name,
        "source": ImageSource.parse(f"oci:images:{name}"),
        "version": "1.0.0",
        "service_type": "container",
        "network": Network(type="none"),
    }
    values |= changes
    return ImageTarget(**values)


DEFAULTS = Defaults(
    hostfs=lambda: ImageSource.parse("oci:images:hostfs"),
    bootkit=lambda: ImageSource.parse("oci:images:bootkit"),
)


def publishing(
    images: MemoryRepository,
    *targets: ImageTarget,
    kind: UpdateType = "partial",
    storage: tuple[Storage, ...] = (),
    **changes: object,
) -> Publishing:
    source = Source(
        version=1, product="p", update_type=kind, storage=storage, targets=targets or (wanted(),)
    )
    values: dict[str, Any] = {
        "signer": the_authority().publisher,
        "ca_pem": the_authority().pem,
        "at": NOW,
        "product": PRODUCT,
        "open_source": lambda _source: images,
        "inspector": AnyLayer(),
    }
    return Publishing(source, **{**values, **changes})


def plan(
    images: MemoryRepository,
    *targets: ImageTarget,
    kind: UpdateType = "partial",
    storage: tuple[Storage, ...] = (),
    **changes: object,
) -> Plan:
    return prepare(publishing(images, *targets, kind=kind, storage=storage, **changes))


def test_what_is_planned(images: MemoryRepository) -> None:
    said: list[str] = []
    target = wanted(
        nsgroup="g", storage=(Mount(dest="/a", label="x"),), network=Network(type="host")
    )
    storage = (Storage(label="x", persistent=True, nsgroup="", size=1),)
    made = prepare(publishing(images, target, storage=storage), said.append)
    found = images.resolve("zot")
    install = made.verified.install
    assert (install.version, install.product, install.update_type) == (1, "p", "partial")
    assert install.storage == storage
    (planned,) = install.targets
    assert (planned.service_name, planned.version, planned.service_type) == (
        "zot", "1.0.0", "container"
    )  # fmt: skip
    assert (planned.network, planned.nsgroup, planned.storage) == (
        Network(type="host"), "g", target.storage
    )  # fmt: skip
    assert (planned.image, planned.size) == (found.digest, found.size)
    (one,) = made.images
    assert (one.target, one.repository, one.descriptor) == (planned, images, found)
    assert one.created == datetime(2025, 5, 5, 5, 5, 5, tzinfo=UTC)
    assert made.verified.data == install.to_bytes()
    assert made.verified.publisher.product == PRODUCT
    assert made.artifacts.signature.blobs == (the_authority().publisher.sign(install.to_bytes()),)
    assert made.artifacts.certificate.blobs == (the_authority().publisher.certificate_pem,)
    assert made.artifacts.install.blobs == (install.to_bytes(),)
    assert said == ["find zot at oci:images:zot", "sign the manifest"]


def test_the_root_hash_of_the_layer_is_signed(images: MemoryRepository) -> None:
    (one,) = plan(images).images
    root_hash = RootHash(Digest.of(b"root" + layer_content(b"zot")).hex)
    (entry,) = one.signatures.manifest.layers
    assert entry.annotations["io.machineos.layer.roothash"] == root_hash
    assert entry.annotations["io.machineos.layer.digest"] == str(Digest.of(layer_content(b"zot")))
    assert one.signatures.manifest.subject == one.descriptor
    assert one.signatures.blobs == (the_authority().publisher.sign_root_hash(root_hash),)


# -- hostfs and bootkit


def test_what_is_absent_is_added_at_the_end() -> None:
    added = with_defaults((wanted(),), DEFAULTS)
    assert [target.service_name for target in added] == ["zot", "hostfs", "bootkit"]
    hostfs, bootkit = added[1:]
    assert (hostfs.version, hostfs.service_type, hostfs.network) == (
        "", "hostfs", Network(type="host")
    )  # fmt: skip
    assert (bootkit.version, bootkit.service_type, bootkit.network) == (
        BOOTKIT_VERSION, "fs-only", Network(type="host")
    )  # fmt: skip
    assert str(hostfs.source) == "oci:images:hostfs"
    assert str(bootkit.source) == "oci:images:bootkit"
    assert BOOTKIT_VERSION == "1.0.0"


def test_what_is_there_is_not_asked_for() -> None:
    def never() -> ImageSource:
        raise AssertionError("nobody needs it")

    own = (wanted("hostfs"), wanted("bootkit"))
    assert with_defaults(own, Defaults(never, never)) == own
    assert with_defaults((wanted(),), None) == (wanted(),)
    half = with_defaults((wanted("hostfs"),), replace(DEFAULTS, hostfs=never))
    assert [target.service_name for target in half] == ["hostfs", "bootkit"]
    half = with_defaults((wanted("bootkit"),), replace(DEFAULTS, bootkit=never))
    assert [target.service_name for target in half] == ["bootkit", "hostfs"]


def test_a_complete_manifest_has_what_boots(images: MemoryRepository) -> None:
    made = plan(images, kind="complete", defaults=DEFAULTS)
    versions = [target.version for target in made.verified.install.targets]
    assert versions == ["1.0.0", "v0.1.0", "1.0.0"]
    with pytest.raises(PolicyError) as caught:
        plan(images, kind="complete")
    assert caught.value.message == "the manifest: has no target hostfs"


# -- versions


@pytest.mark.parametrize(
    ("annotations", "labels", "version"),
    [
        ({VERSION: "a"}, {VERSION: "b"}, "a"),
        ({}, {VERSION: "b"}, "b"),
        ({VERSION: ""}, {VERSION: "b"}, "b"),
        ({}, {VERSION: ""}, ""),
        ({}, {VERSION: 7}, ""),
        ({}, None, ""),
        ({}, "x", ""),
    ],
)
def test_the_version_that_an_image_carries(
    images: MemoryRepository, annotations: dict[str, str], labels: object, version: str
) -> None:
    image(images, "hostfs", annotations=annotations, run={"Labels": labels})
    target = wanted("hostfs", version="", service_type="hostfs")
    if version:
        assert plan(images, target).verified.install.targets[0].version == version
        return
    with pytest.raises(MissingError) as caught:
        plan(images, target)
    assert caught.value.message == "target hostfs (oci:images:hostfs): carries no version"
    assert caught.value.hint == (
        f"give the image the label {VERSION}, or name this target in manifest.yaml"
    )


# -- times


def test_the_time_is_that_of_the_newest_image_or_as_told(images: MemoryRepository) -> None:
    targets = (wanted(), wanted("hostfs", service_type="hostfs"), wanted("t0"))
    image(images, "t0", created="2024-01-01T00:00:00Z")
    assert plan(images, *targets).created == datetime(2025, 6, 6, 6, 6, 6, tzinfo=UTC)
    told = datetime(2020, 1, 1, tzinfo=UTC)
    made = plan(images, *targets, created=told)
    assert made.created == told
    assert made.artifacts.install.manifest.annotations == {
        "org.opencontainers.image.created": "2020-01-01T00:00:00Z"
    }


@pytest.mark.parametrize(
    ("created", "when"),
    [
        ("2025-01-01T00:00:00Z", datetime(2025, 1, 1, tzinfo=UTC)),
        ("2025-01-01T02:00:00+02:00", datetime(2025, 1, 1, tzinfo=UTC)),
        ("2025-01-01T00:00:00.999Z", datetime(2025, 1, 1, tzinfo=UTC)),
        ("2025-01-01T00:00:00", datetime(2025, 1, 1, tzinfo=UTC)),
        ("yesterday", EPOCH),
        ("", EPOCH),
        ("0001-01-01T00:00:00+23:59", EPOCH),
        (7, EPOCH),
        (None, EPOCH),
    ],
)
def test_when_an_image_was_made(images: MemoryRepository, created: object, when: datetime) -> None:
    image(images, "zot", created=created)
    assert plan(images).created == when


def test_an_image_can_say_so_in_its_manifest(images: MemoryRepository) -> None:
    notes = {"org.opencontainers.image.created": "2025-01-01T00:00:00Z"}
    image(images, "zot", created=None, annotations=notes)
    assert plan(images).created == datetime(2025, 1, 1, tzinfo=UTC)
    # What the configuration says counts more.
    image(images, "zot", created="2024-01-01T00:00:00Z", annotations=notes)
    assert plan(images).created == datetime(2024, 1, 1, tzinfo=UTC)


# -- conversions


class Converter:
    """Makes another image in the place of any, and remembers what it was asked."""

    def __init__(
        self,
        images: MemoryRepository,
        *,
        kind: str = SQUASHFS,
        run: dict[str, object] | None = None,
        layer: bytes = layer_content(b"converted"),
    ) -> None:
        self.images = images
        self.kind = kind
        self.run = run
        self.layer = layer
        self.asked: list[tuple[str, tuple[Mount, ...] | None]] = []

    def convert(
        self, _repository: Repository, reference: str, mounts: tuple[Mount, ...] | None
    ) -> tuple[MemoryRepository, Descriptor]:
        self.asked.append((reference, mounts))
        return self.images, image(
            self.images, "converted", self.layer, kind=self.kind, run=self.run, raw=True
        )


def test_archives_are_converted_by_digest_with_what_will_be_mounted(
    images: MemoryRepository,
) -> None:
    tar = image(images, "zot", b"tar", kind=TAR, created="2025-07-07T00:00:00Z")
    elsewhere = MemoryRepository("elsewhere")
    converter = Converter(elsewhere)
    said: list[str] = []
    mounts = (Mount(dest="/a", label="x"),)
    storage = (Storage(label="x", persistent=True, nsgroup="", size=1),)
    made = prepare(
        publishing(images, wanted(storage=mounts), storage=storage, converter=converter),
        said.append,
    )
    assert converter.asked == [(str(tar.digest), mounts)]
    assert made.images[0].repository is elsewhere
    assert made.images[0].descriptor == elsewhere.resolve("converted")
    assert made.verified.install.targets[0].image == elsewhere.resolve("converted").digest
    # The conversion may not keep when the image was made.
    assert made.created == datetime(2025, 7, 7, tzinfo=UTC)
    assert said[1] == "convert zot to a layer under dm-verity"


def test_an_image_that_is_not_run_needs_no_folders(images: MemoryRepository) -> None:
    image(images, "zot", b"tar", kind=TAR)
    converter = Converter(images)
    plan(images, wanted(service_type="fs-only"), converter=converter)
    assert [mounts for _, mounts in converter.asked] == [None]


def test_what_is_ready_is_not_converted(images: MemoryRepository) -> None:
    converter = Converter(images)
    plan(images, converter=converter)
    assert converter.asked == []


def test_several_layers_are_made_one_where_that_can_be_done(images: MemoryRepository) -> None:
    image(images, "zot", b"one", b"two")
    converter = Converter(images)
    plan(images, converter=converter)
    assert len(converter.asked) == 1
    with pytest.raises(VerificationError) as caught:
        plan(images)
    assert caught.value.message == (
        "target zot (oci:images:zot): has 2 layers, a machine mounts only one"
    )


def test_archives_that_nobody_converts_are_refused(images: MemoryRepository) -> None:
    image(images, "zot", b"tar", kind=TAR)
    with pytest.raises(VerificationError) as caught:
        plan(images)
    assert caught.value.message == (
        "target zot (oci:images:zot): has tar layers, which cannot be mounted under dm-verity"
    )


def test_what_a_conversion_makes_is_judged_too(images: MemoryRepository) -> None:
    image(images, "zot", b"tar", kind=TAR)
    with pytest.raises(VerificationError, match="not squashfs or EROFS"):
        plan(images, converter=Converter(images, kind="application/x"))
    with pytest.raises(DocumentError, match="nothing to run"):
        plan(images, converter=Converter(images, run={"Entrypoint": None}))


# -- which image it is


def test_claims_of_the_author_are_about_what_is_at_the_source(images: MemoryRepository) -> None:
    tar = image(images, "zot", b"tar", kind=TAR)
    good = wanted(digest=str(tar.digest), size=tar.size)
    plan(images, good, converter=Converter(images))
    for bad in ({"digest": "sha256:" + "0" * 64}, {"size": tar.size + 1}):
        with pytest.raises(DigestError, match=r"target zot \(oci:images:zot\): "):
            plan(images, msgspec.structs.replace(good, **bad), converter=Converter(images))


def listed(images: MemoryRepository, *platforms: dict[str, str] | None) -> list[Descriptor]:
    """Put an index under the tag ``zot``, with an image for each platform."""
    entries = [
        msgspec.structs.replace(image(images, f"t{number}", b"%d" % number), platform=platform)
        for number, platform in enumerate(platforms)
    ]
    index = Index(media_type=INDEX, manifests=tuple(entries))
    images.put_manifest(index.to_bytes(), media_type=INDEX, tag="zot")
    return entries


AMD = {"os": "linux", "architecture": "amd64"}
ARM = {"os": "linux", "architecture": "arm64"}


def test_an_index_gives_the_image_of_our_platform(images: MemoryRepository) -> None:
    assert MACHINE == ("linux", "amd64")
    entries = listed(images, ARM, AMD, AMD)
    assert plan(images).images[0].descriptor.digest == entries[1].digest
    whole = images.resolve("zot")
    claimed = wanted(digest=str(whole.digest), size=whole.size)
    assert plan(images, claimed).images[0].descriptor.digest == entries[1].digest


def test_an_index_with_one_image_of_no_platform(images: MemoryRepository) -> None:
    entries = listed(images, None)
    assert plan(images).images[0].descriptor.digest == entries[0].digest


@pytest.mark.parametrize(
    ("platforms", "there"),
    [((ARM,), "linux/arm64"), ((None, ARM, None), "linux/arm64, unknown"), ((), "")],
)
def test_an_index_without_our_platform(
    images: MemoryRepository, platforms: tuple[dict[str, str] | None, ...], there: str
) -> None:
    listed(images, *platforms)
    with pytest.raises(MissingError) as caught:
        plan(images)
    assert caught.value.message == ("target zot (oci:images:zot): is not there for linux/amd64")
    assert caught.value.hint == f"it is for: {there}"


# -- what no machine would take


@pytest.mark.parametrize(
    ("signer", "error"),
    [("expired", SignatureError), ("other", PolicyError)],
)
def test_a_signer_that_no_machine_would_accept(
    images: MemoryRepository, signer: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        plan(images, signer=getattr(the_authority(), signer))
    for product in (None, OTHER_PRODUCT):
        made = plan(images, signer=the_authority().other, product=product)
        assert made.verified.publisher.product == OTHER_PRODUCT
    with pytest.raises(SignatureError):
        plan(images, at=NOW + timedelta(days=30_000))


def test_a_container_has_to_run_and_another_image_has_not(images: MemoryRepository) -> None:
    image(images, "zot", run={"Entrypoint": None})
    plan(images, wanted(service_type="fs-only"))
    with pytest.raises(DocumentError) as caught:
        plan(images)
    assert caught.value.name == "configuration of target zot (oci:images:zot)"
    assert [fault.rule for fault in caught.value.faults] == ["config-command"]


@pytest.mark.parametrize("kind", [CONFIG, DOCKER_CONFIG])
def test_a_large_configuration_is_not_read(images: MemoryRepository, kind: str) -> None:
    image(images, "zot", config_type=kind, run={"Env": ["A=" + "b" * (1 << 20)]})
    with pytest.raises(VerificationError, match="at most 1048576 are read"):
        plan(images)


def test_an_image_of_another_kind_of_configuration(images: MemoryRepository) -> None:
    image(images, "zot", config_type="application/x", run={"Env": ["A=" + "b" * (1 << 20)]})
    with pytest.raises(VerificationError, match="is not an image"):
        plan(images)
    # Docker's is read for the time, and converted.
    image(
        images, "zot", b"tar", kind=TAR, config_type=DOCKER_CONFIG, created="2025-09-09T00:00:00Z"
    )
    made = plan(images, converter=Converter(images))
    assert made.created == datetime(2025, 9, 9, tzinfo=UTC)
