"""Publishing into layouts: what is written, in which order, and that twice is once."""

from __future__ import annotations

import os
import re
import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fakes.repository import MemoryRegistry, MemoryRepository
from machineos.build.foreign.signed import signature_tag
from machineos.build.publish.plan import Defaults
from machineos.build.publish.publish import Place, look
from machineos.core import run
from machineos.document.product import artifacts
from machineos.document.verify.images import root_hash_signatures, verify_target
from machineos.document.verify.published import fetch_verified
from machineos.errors import (
    AuthError,
    ConflictError,
    DigestError,
    DocumentError,
    MissingError,
    PolicyError,
    SeveralError,
    SignatureError,
    TransferError,
    VerificationError,
)
from machineos.oci.layout.folder import LayoutRegistry, LayoutRepository
from machineos.oci.model.atomfs import root_hash_of
from machineos.oci.model.documents import INDEX, TITLE, Descriptor, Index, parse_manifest
from machineos.oci.model.reference import ImageSource
from machineos.oci.model.repository import Repository
from machineos.oci.registry.client import HttpRegistry
from machineos.trust.verify.roothash import is_signature
from unit.document.conftest import NOW, PRODUCT, SOURCE, Authority, World, put_image
from waiting import PATIENCE

TAR = "application/vnd.oci.image.layer.v1.tar+gzip"


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file of a folder: its content and when it was written."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_what_is_published_verifies_and_is_complete(world: World) -> None:
    published = world.publish()
    fetched = world.fetch()
    verified = fetched.verified
    assert fetched.verified == published.verified
    assert fetched.descriptor.digest == published.descriptor.digest
    install = fetched.verified.install
    assert [target.service_name for target in install.targets] == ["zot", "hostfs", "bootkit"]
    assert [target.version for target in install.targets] == ["1.0.0", "v0.1.0", "1.0.0"]
    assert [target.network.type for target in install.targets] == ["simple", "host", "host"]
    store = world.registry.repository("mos")
    assert set(store.tags()) == {target.tag for target in install.targets}
    for target in install.targets:
        manifest = verify_target(store, target)
        signatures = root_hash_signatures(store, target, manifest, verified.publisher)
        assert len(signatures) == len(manifest.layers)
        for layer in manifest.layers:
            assert store.has_blob(layer.digest)
            publisher = fetched.verified.publisher
            assert is_signature(signatures[layer.digest], root_hash_of(layer), publisher)


def test_the_artifacts_are_those_of_the_seed(world: World) -> None:
    published = world.publish()
    own = world.registry.repository("machine/install")
    assert own.tags() == ("1.0.0", signature_tag(published.descriptor.digest))
    _, data = own.manifest("1.0.0")
    manifest = parse_manifest(data, name="install")
    assert manifest.artifact_type == "application/vnd.machine.install"
    assert manifest.layers[0].media_type == "application/vnd.machine.install"
    assert manifest.layers[0].annotations == {"org.opencontainers.image.title": "index.json"}
    assert b'"data":"e30="' in data
    cosign = "application/vnd.dev.cosign.artifact.sig.v1+json"  # test_cosigned.py
    found = own.referrers(published.descriptor.digest)
    assert len(found) == 3
    found = tuple(entry for entry in found if entry.artifact_type != cosign)
    titles = {}
    for entry in found:
        _, body = own.manifest(str(entry.digest))
        referrer = parse_manifest(body, name="referrer")
        assert referrer.layers[0].media_type == "application/vnd.oci.image.layer.v1.tar"
        titles[entry.artifact_type] = referrer.layers[0].annotations[TITLE]
    assert titles == {
        "application/vnd.machine.pubkeycrt": "cert.pem",
        "application/vnd.machine.signature": "install.json.signed",
    }


def test_publishing_twice_changes_not_one_byte_and_touches_no_file(world: World) -> None:
    first = world.publish()
    before = snapshot(world.root)
    assert world.publish() == first
    assert snapshot(world.root) == before


def test_the_same_input_elsewhere_gives_the_same_bytes(world: World, tmp_path: Path) -> None:
    world.publish()
    world.publish(registry=LayoutRegistry(tmp_path / "again", writable=True))
    one, two = snapshot(world.root), snapshot(tmp_path / "again")
    assert {name: data for name, (data, _) in one.items()} == {
        name: data for name, (data, _) in two.items()
    }


def test_the_time_is_that_of_the_newest_image_or_as_told(world: World) -> None:
    assert world.publish().created == datetime(2025, 6, 6, 4, 6, 6, tzinfo=UTC)
    told = datetime(2024, 2, 3, tzinfo=UTC)
    published = world.publish(created=told)
    assert published.created == told
    assert world.fetch().verified == published.verified


def test_an_image_that_does_not_say_when_it_was_made(world: World) -> None:
    for tag in ("zot", "hostfs", "bootkit"):
        put_image(LayoutRepository(world.images, writable=True), tag, created="?", version="v1")
    assert world.publish().created == datetime(1970, 1, 1, tzinfo=UTC)


def test_a_newer_manifest_takes_the_tag_and_the_older_stays_by_digest(world: World) -> None:
    old = world.publish()
    new = world.publish(SOURCE.replace("1.0.0", "1.0.1"))
    assert world.fetch().verified == new.verified
    by_digest = fetch_verified(
        world.registry.repository("machine/install"),
        str(old.descriptor.digest),
        ca_pem=world.authority.pem,
        at=NOW,
        product=PRODUCT,
    )
    assert by_digest.verified == old.verified


def test_hostfs_and_bootkit_of_ones_own_are_used(world: World) -> None:
    repository = LayoutRepository(world.images, writable=True)
    put_image(repository, "mine", contents=(b"mine",))
    text = SOURCE + (
        '  - {service_name: hostfs, source: "oci:{images}:mine", version: 2.0.0,'
        " service_type: hostfs, network: {type: host}}\n"
    )
    install = world.publish(text).verified.install
    assert [(target.service_name, target.version) for target in install.targets] == [
        ("zot", "1.0.0"),
        ("hostfs", "2.0.0"),
        ("bootkit", "1.0.0"),
    ]


def test_without_defaults_only_what_is_named(world: World) -> None:
    def asked() -> ImageSource:
        raise AssertionError("nobody needs it")

    services = SOURCE.replace("complete", "partial")
    install = world.publish(services, defaults=None).verified.install
    assert [target.service_name for target in install.targets] == ["zot"]
    both = SOURCE + (
        '  - {service_name: hostfs, source: "oci:{images}:hostfs", version: 2.0.0,'
        " service_type: hostfs}\n"
        '  - {service_name: bootkit, source: "oci:{images}:bootkit", version: 2.0.0,'
        " service_type: fs-only}\n"
    )
    world.publish(both, defaults=Defaults(asked, asked))


def test_digest_and_size_that_the_author_claims_are_checked(world: World) -> None:
    descriptor = LayoutRepository(world.images).resolve("zot")
    claim = f"    digest: {descriptor.digest}\n    size: {descriptor.size}\n"
    world.publish(SOURCE + claim)
    before = snapshot(world.root)
    for wrong in (
        f"    digest: sha256:{'0' * 64}\n",
        f"    size: {descriptor.size + 1}\n",
        f"    digest: {descriptor.digest}\n    size: {descriptor.size - 1}\n",
    ):
        with pytest.raises(DigestError, match="zot"):
            world.publish(SOURCE + wrong)
    assert snapshot(world.root) == before


class FakeConverter:
    """Turns any image into one whose layer says that it is squashfs."""

    def __init__(self, folder: Path) -> None:
        self.repository = LayoutRepository(folder, writable=True)
        self.seen: list[str] = []

    def convert(
        self, repository: Repository, reference: str, mounts: object
    ) -> tuple[Repository, Descriptor]:
        self.seen.append(reference)
        return self.repository, put_image(self.repository, "out", contents=(b"converted",))


def test_tar_images_go_through_the_converter_by_digest(world: World, tmp_path: Path) -> None:
    repository = LayoutRepository(world.images, writable=True)
    tar = put_image(repository, "zot", contents=(b"tar",), media_type=TAR, annotated=False)
    converter = FakeConverter(tmp_path / "converted")
    claim = f"    digest: {tar.digest}\n    size: {tar.size}\n"
    install = world.publish(SOURCE + claim, converter=converter).verified.install
    assert converter.seen == [str(tar.digest)]
    target = install.targets[0]
    assert target.image == converter.repository.resolve("out").digest
    assert verify_target(world.registry.repository("mos"), target).layers


def test_tar_images_without_a_converter_are_refused(world: World) -> None:
    repository = LayoutRepository(world.images, writable=True)
    put_image(repository, "zot", contents=(b"tar",), media_type=TAR, annotated=False)
    with pytest.raises(VerificationError, match="tar layers"):
        world.publish()
    assert not world.root.exists()


def test_layers_without_a_root_hash_are_refused(world: World) -> None:
    put_image(LayoutRepository(world.images, writable=True), "zot", annotated=False)
    with pytest.raises(VerificationError, match="root hash"):
        world.publish()
    assert not world.root.exists()


def test_an_index_gives_the_image_of_our_platform(world: World) -> None:
    repository = LayoutRepository(world.images, writable=True)
    ours = put_image(repository, "amd", contents=(b"amd",))
    theirs = put_image(repository, "arm", contents=(b"arm",))

    def entry(found: Descriptor, architecture: str) -> Descriptor:
        return Descriptor(
            media_type=found.media_type,
            digest=found.digest,
            size=found.size,
            platform={"os": "linux", "architecture": architecture},
        )

    both = Index(media_type=INDEX, manifests=(entry(theirs, "arm64"), entry(ours, "amd64")))
    named = repository.put_manifest(both.to_bytes(), media_type=INDEX, tag="zot")
    install = world.publish(SOURCE + f"    digest: {named.digest}\n").verified.install
    assert install.targets[0].image == ours.digest
    only = Index(media_type=INDEX, manifests=(entry(theirs, "arm64"),))
    repository.put_manifest(only.to_bytes(), media_type=INDEX, tag="zot")
    with pytest.raises(MissingError, match="linux/amd64"):
        world.publish()


def test_a_default_hostfs_without_a_version_is_refused(world: World) -> None:
    put_image(LayoutRepository(world.images, writable=True), "hostfs")
    with pytest.raises(MissingError, match="version"):
        world.publish()


def test_a_signer_that_no_machine_would_accept_publishes_nothing(
    world: World, stranger: Authority
) -> None:
    for signer, error in (
        (stranger.publisher, SignatureError),
        (world.authority.expired, SignatureError),
        (world.authority.other, PolicyError),
    ):
        with pytest.raises(error):
            world.publish(signer=signer)
    assert not world.root.exists()


@pytest.mark.parametrize("name", ["../../x", "UP", "a//b", "", "/a", "a/"])
def test_a_bad_repository_name_publishes_nothing(world: World, name: str) -> None:
    with pytest.raises(DocumentError):
        world.publish(name=name)
    assert not world.root.exists()


@pytest.mark.parametrize("tag", ["../x", "", "-a", "a" * 129, "a:b"])
def test_a_bad_tag_publishes_nothing(world: World, tag: str) -> None:
    with pytest.raises(DocumentError):
        world.publish(tag=tag)
    assert not world.root.exists()


@pytest.mark.tool("openssl")
def test_openssl_verifies_what_is_published(world: World, tmp_path: Path) -> None:
    """The commands of the help text of ``mosb manifest verify``, as a person would type them."""
    world.publish()
    own = world.registry.repository("machine/install")
    blobs = own.path / "blobs" / "sha256"
    descriptor, data = own.manifest("1.0.0")
    install = blobs / parse_manifest(data, name="i").layers[0].digest.hex

    def referrer(kind: str) -> Path:
        (entry,) = own.referrers(descriptor.digest, artifact_type=kind)
        return (
            blobs
            / parse_manifest(own.manifest(str(entry.digest))[1], name="r").layers[0].digest.hex
        )

    certificate, signature = referrer(artifacts.CERTIFICATE), referrer(artifacts.SIGNATURE)
    assert certificate.read_bytes() == world.authority.publisher.certificate_pem
    key = tmp_path / "key.pem"
    run.run(
        ["openssl", "x509", "-in", certificate, "-noout", "-pubkey", "-out", key], timeout=PATIENCE
    )
    verify: list[str | Path] = [
        "openssl",
        "dgst",
        "-sha256",
        "-verify",
        key,
        "-signature",
        signature,
    ]
    assert "Verified OK" in run.run([*verify, install], timeout=PATIENCE).text
    other = tmp_path / "other.json"
    other.write_bytes(install.read_bytes() + b" ")
    assert run.run([*verify, other], timeout=PATIENCE, check=False).status != 0
    ca = tmp_path / "ca.pem"
    ca.write_bytes(world.authority.pem)
    run.run(
        ["openssl", "verify", "-attime", str(int(NOW.timestamp())), "-CAfile", ca, certificate],
        timeout=PATIENCE,
    )


@pytest.mark.tool("openssl")
def test_openssl_verifies_the_root_hash_signatures(world: World, tmp_path: Path) -> None:
    verified = world.publish().verified
    install = verified.install
    store = world.registry.repository("mos")
    certificate = tmp_path / "cert.pem"
    certificate.write_bytes(world.authority.publisher.certificate_pem)
    target = install.targets[0]
    manifest = verify_target(store, target)
    for layer, signature in zip(
        manifest.layers,
        root_hash_signatures(store, target, manifest, verified.publisher).values(),
        strict=True,
    ):
        (tmp_path / "s.p7s").write_bytes(signature)
        (tmp_path / "hash").write_text(root_hash_of(layer))
        command: list[str | Path] = [
            "openssl", "smime", "-verify", "-inform", "der", "-in", tmp_path / "s.p7s",
            "-content", tmp_path / "hash", "-certfile", certificate, "-nointern",
        ]  # fmt: skip
        run.run([*command, "-noverify", "-binary"], timeout=PATIENCE)
        (tmp_path / "hash").write_text("0" * 64)
        wrong = run.run([*command, "-noverify", "-binary"], timeout=PATIENCE, check=False)
        assert wrong.status != 0


# -- where it goes is looked at first


class Asked:
    """Opens sources, and knows whether it was asked to."""

    def __init__(self) -> None:
        self.sources: list[ImageSource] = []

    def __call__(self, source: ImageSource) -> Repository:
        self.sources.append(source)
        raise MissingError("nothing is here")


@pytest.mark.parametrize("way", ["registry", "registry/mos", "registry/machine/install/blobs"])
def test_a_file_in_the_way_is_seen_before_any_image(world: World, tmp_path: Path, way: str) -> None:
    path = tmp_path / way
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    asked = Asked()
    with pytest.raises(ConflictError, match=f"{path} is not a folder"):
        world.publish(open_source=asked)
    assert asked.sources == []


def test_a_folder_that_may_not_be_written(world: World) -> None:
    world.root.mkdir(mode=0o500)
    child = os.fork()
    if child == 0:  # root may write everywhere: as nobody
        status = 1
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            try:
                world.publish()
            except ConflictError as error:
                status = 0 if "may not be written by you" in error.message else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not list(world.root.iterdir())


def test_a_registry_that_is_not_there_is_seen_before_any_image(world: World) -> None:
    asked = Asked()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        host = f"127.0.0.1:{nobody.getsockname()[1]}"
        with HttpRegistry(host, plain_http=True) as registry, pytest.raises(TransferError):
            world.publish(open_source=asked, registry=registry)
    assert asked.sources == []


def test_what_a_registry_says_of_what_it_has_not_is_no_reason_to_stop() -> None:
    """Some refuse to be asked of a repository that does not exist yet; a push makes it."""

    class Refuses(MemoryRepository):
        def resolve(self, reference: str) -> Descriptor:
            raise AuthError(f"no {reference}", status=401)

    class Registries(MemoryRegistry):
        def repository(self, name: str) -> MemoryRepository:
            return Refuses(name)

    look(Place(Registries(), "machine/install", "1"))


def test_all_missing_images_are_told_at_once(world: World) -> None:
    text = SOURCE.replace("{images}:zot", "{images}:none")
    index = world.images / "index.json"
    index.write_text(index.read_text().replace('"hostfs"', '"other"'))
    with pytest.raises(SeveralError) as caught:
        world.publish(text)
    assert caught.value.exit_code == MissingError.exit_code
    first, second, third = caught.value.message.split("\n")
    assert first == "2 things are wrong"
    assert re.fullmatch(r"  target zot \(oci:.*:none\): oci:.*: no tag 'none'", second)
    assert re.fullmatch(r"  target hostfs \(oci:.*:hostfs\): oci:.*: no tag 'hostfs'", third)
    assert not world.root.exists()
