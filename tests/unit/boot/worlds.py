"""Machines for the tests of the boot: an installed one, one with an install medium, a blank one.

Keys, certificates and published images are made once and never changed: a test that spoils
something gets a copy.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import cast
from uuid import UUID

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from changed import replace
from fakes.boot import FakeMachine, Uki
from fakes.bootparts.disks import Disk, Luks, Volume, luks
from fakes.bootparts.files import Tree, blobs, image_content
from fakes.bootparts.kernel import content_hash, sign_policy_text
from fakes.bootparts.tpm import FakeTpm
from fakes.bootparts.volumes import STORAGE_KEY, Storage, volume_header
from fakes.layers import AnyLayer, layer_content
from machineos.build.publish.plan import Defaults, Publishing
from machineos.build.publish.publish import Place, publish
from machineos.build.publish.source import parse_source
from machineos.core.digest import Digest
from machineos.core.word import RootHash
from machineos.document.between.bootsettings import Anchors, Mode, Settings
from machineos.document.between.medium import MediumIndex
from machineos.document.product.artifacts import install_artifacts
from machineos.document.product.install import Install
from machineos.document.state import system
from machineos.document.verify.published import Fetched, fetch_verified
from machineos.host.kernel.ipepolicy import boot_policy_text, closed_policy_text
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.documents import Descriptor, parse_manifest
from machineos.oci.model.reference import ImageSource
from machineos.oci.model.repository import Registry, Repository
from machineos.trust.keys.signer import FileSigner
from machineos.trust.measure.tpm_policy import SignedPolicy, render_policies
from machineos.trust.seal.layout import LAYOUT_VERSION, Index
from unit.document.conftest import SQUASHFS, MemoryRepository, put_image
from unit.trust.sealing import ADMIN, LUKS, NOTHING_MORE, SECURE_BOOT, both
from vectors.certificates import (
    CA_NAME,
    NOW,
    OTHER_PRODUCT,
    PRODUCT,
    SUDI_CA_NAME,
    Recipe,
    ca,
    device,
    key,
    publisher,
)

SERIAL = "SN0001"
LINE = "console=ttyS0,115200n8 panic=10 lsm=lockdown,ipe lockdown=integrity"
KERNEL = "6.12.1"
UKI_KEY = b"uki-identifier"
KEY = bytes(range(32))
SYSTEMD = "usr/lib/systemd/systemd"
EROFS = "application/vnd.stacker.image.layer.erofs+zstd"
UKIS = {mode: mode.encode().ljust(32, b"-") for mode in ("run", "install", "provision")}
SOURCE = """\
version: 1
product: default
update_type: complete
storage:
  - label: zot
    persistent: true
    nsgroup: "zot"
    size: 64
targets:
  - service_name: zot
    source: "oci:/images:zot"
    version: 1.0.0
    service_type: container
    nsgroup: "zot"
    network:
      type: simple
      ipv4: 10.0.3.99/24
    storage:
      - dest: /data
        label: zot
"""
LIVE = """\
version: 1
product: default
update_type: complete
targets: []
"""


@dataclass(frozen=True)
class Content:
    """What was published: repositories by name, and the manifest with its proofs."""

    repositories: dict[str, MemoryRepository]
    fetched: Fetched

    def copied(self) -> dict[str, MemoryRepository]:
        """Return repositories that may be spoilt."""
        result = {}
        for name, repository in self.repositories.items():
            result[name] = copy_of(repository)
        return result

    @property
    def install(self) -> Install:
        """The manifest."""
        return self.fetched.verified.install


def copy_of(repository: MemoryRepository) -> MemoryRepository:
    """Return a copy with blobs of its own."""
    made = MemoryRepository()
    for name in ("_blobs", "_manifests", "_tags"):
        setattr(made, name, dict(getattr(repository, name)))
    return made


class MemoryRegistry:
    """Repositories by name."""

    name = "memory"

    def __init__(self) -> None:
        self.repositories: dict[str, MemoryRepository] = {}

    def repository(self, name: str) -> MemoryRepository:
        """Return the repository, new if need be."""
        return self.repositories.setdefault(name, MemoryRepository())


HOSTFS = image_content(SYSTEMD, folders=("etc", "var", "usr/lib/modules", "usr/lib/firmware",
                                        "config", "atomfs-store", "dev", "proc", "sys",
                                        "run"))  # fmt: skip
ZOT = (b"a service",)


def kernel_image(version: str = "0001") -> bytes:
    """Return as much of a UKI as says which policy version it has."""
    release = f"ID=machineos\nVERSION_ID={version}\n".encode()
    head = b"MZ".ljust(60, b"\0") + struct.pack("<I", 64)
    coff = b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, 1, 0, 0, 0, 0, 0)
    section = struct.pack("<8sIIII", b".osrel", len(release), 4096, 512, 512).ljust(40, b"\0")
    return (head + coff + section).ljust(512, b"\0") + release.ljust(512, b"\0")


def boot_files_image(version: str = "0001") -> bytes:
    """Return a bootkit's first layer, whose kernel image has this policy version."""
    kernel = {"bootkit/kernel.efi": kernel_image(version)}
    return image_content("bootkit/shim.efi", files=kernel)


BOOT_FILES = boot_files_image()
MODULES = image_content(folders=(f"usr/lib/modules/{KERNEL}", "usr/lib/firmware"))
VOLUME = RootHash(content_hash(layer_content(MODULES)))


def publish_content(
    source: str = SOURCE,
    *,
    product: UUID = PRODUCT,
    hostfs: bytes = HOSTFS,
    boot_files: bytes = BOOT_FILES,
    modules: bytes = MODULES,
    erofs: str = "",
    by: str = "publisher",
) -> Content:
    """Publish a manifest and the images that it names, in memory; ``erofs`` is one's name."""
    images = MemoryRepository()
    bootkit = (boot_files, modules)
    for name, contents in (("zot", ZOT), ("hostfs", (hostfs,)), ("bootkit", bootkit)):
        put_image(
            cast("LayoutRepository", images),
            name,
            contents=contents,
            media_type=EROFS if name == erofs else SQUASHFS,
            version="1",
        )
    registry = MemoryRegistry()
    publish(
        Publishing(
            source=parse_source(source.encode()),
            signer=signer(product, by),
            ca_pem=ca_pem(),
            at=NOW,
            product=product,
            open_source=lambda _source: images,
            inspector=AnyLayer(),
            defaults=Defaults(
                hostfs=lambda: ImageSource.parse("oci:/images:hostfs"),
                bootkit=lambda: ImageSource.parse("oci:/images:bootkit"),
            ),
        ),
        Place(cast("Registry", registry), "machine/install", "1.0.0"),
    )
    fetched = fetch_verified(
        registry.repository("machine/install"), "1.0.0", ca_pem=ca_pem(), at=NOW, product=product
    )
    return Content(registry.repositories, fetched)


def signed_again(install: Install, what: Content) -> Content:
    """Return the content with another document, signed by the same publisher."""
    data = install.to_bytes()
    ours = signer(PRODUCT, "publisher")
    made = install_artifacts(data, ours.sign(data), ours.certificate_pem, created=NOW)
    repository = MemoryRepository()
    for artifact in (made.certificate, made.signature):
        artifact.store(cast("Repository", repository))
    made.install.store(cast("Repository", repository), tag="1.0.0")
    found = fetch_verified(repository, "1.0.0", ca_pem=ca_pem(), at=NOW, product=PRODUCT)
    return Content({**what.repositories, "machine/install": repository}, found)


def with_image(name: str, contents: tuple[bytes, ...]) -> Content:
    """Return the content with another image for a target, which publishing might refuse."""
    repositories = content().copied()
    store = cast("LayoutRepository", repositories["mos"])
    image = put_image(store, "another", contents=contents)
    targets = tuple(
        msgspec.structs.replace(one, digest=str(image.digest), size=image.size)
        if one.service_name == name
        else one
        for one in content().install.targets
    )
    install = msgspec.structs.replace(content().install, targets=targets)
    return signed_again(install, Content(repositories, content().fetched))


@functools.cache
def content() -> Content:
    """What the installed machine runs."""
    return publish_content()


@functools.cache
def foreign_content() -> Content:
    """What a machine of another product of the same CA runs."""
    return publish_content(product=OTHER_PRODUCT)


# -- certificates, anchors, images


@functools.cache
def ca_pem() -> bytes:
    """The manifest CA."""
    return ca().pem()


@functools.cache
def signer(product: UUID, label: str) -> FileSigner:
    """A publisher of the product, by the name of their key."""
    return FileSigner(publisher(product).but(key=key(label)).build(), key(label))


@functools.cache
def firmware() -> x509.Certificate:
    """The UKI certificate, which shim gives to the kernel."""
    return Recipe(common_names=("UKI",), key=key("uki"), subject_key=UKI_KEY).build()


def device_pem(serial: str = SERIAL) -> bytes:
    """A device certificate; one for each machine."""
    return _device_pem(serial)


@functools.cache
def _device_pem(serial: str) -> bytes:
    return device(serial).pem()


@functools.cache
def device_key() -> bytes:
    """The private key of every device certificate here."""
    return key("device").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@functools.cache
def anchors() -> Anchors:
    """What the builder puts into the initrd."""
    cross = Recipe(
        common_names=(CA_NAME,), key=key("ca"), issuer_name="UKI", issuer_key=key("uki"),
        authority=UKI_KEY,
    ).build()  # fmt: skip
    return Anchors(
        manifest_ca=ca_pem(),
        manifest_ca_uki=cross.public_bytes(Encoding.DER),
        sudi_ca=ca(SUDI_CA_NAME, "sudi-ca").pem(),
        policy_key=LUKS,
        admin_policy_key=ADMIN,
        ipe_boot=sign_policy_text(boot_policy_text(1, VOLUME), key("uki")),
        ipe_closed=sign_policy_text(closed_policy_text(1, VOLUME), key("uki")),
        apparmor=b"compiled profiles",
    )


@functools.cache
def policies_of(uki: bytes, version: str = "0001") -> tuple[SignedPolicy, ...]:
    """The signed policies of one UKI, beside which nothing was measured."""
    return both(SECURE_BOOT, uki, version, pcr12=bytes(32), more=NOTHING_MORE)


def settings(mode: Mode = "run", **changes: object) -> Settings:
    """What the builder writes for this mode."""
    usual = Settings(
        mode=mode,
        policy_version="0001",
        command_line=LINE,
        kernel=KERNEL,
        modules_volume=str(VOLUME),
        epoch=int(NOW.timestamp()) - 86400,
        modules=("loop.ko", "dm-verity.ko"),
        drivers=(("virtio:d2*", ("virtio_blk.ko",)), ("usb:*", ("xhci.ko", "usb.ko"))),
        filesystems={"iso9660": ("isofs.ko",), "vfat": ("vfat.ko",), "erofs": ("erofs.ko",)},
    )
    return msgspec.structs.replace(usual, **changes)


def uki(mode: Mode = "run", **changes: object) -> Uki:
    """The signed image of a mode."""
    return Uki(
        measured=UKIS[mode],
        settings=msgspec.json.encode(settings(mode, **changes)),
        anchors=anchors(),
        policies=render_policies(policies_of(UKIS[mode])),
    )


# -- disks and machines


def provisioned_tpm(
    *, certificate: bytes | None = None, floor: str = "0001", sealed_for: bytes = LUKS
) -> FakeTpm:
    """A TPM with everything in place, for the usual configuration key."""
    nv = {
        Index.ADMIN_PASSWORD: b"trust-password",
        Index.LAYOUT: LAYOUT_VERSION,
        Index.POLICY_VERSION: floor.encode(),
        Index.SUDI_CERT: device_pem() if certificate is None else certificate,
        Index.SUDI_KEY: device_key(),
        Index.STORAGE_KEY: STORAGE_KEY,
        Index.CONFIGURATION_KEY: KEY,
    }
    return FakeTpm(nv=nv, sealed_for=sealed_for, owned=True)


def configuration(what: Content) -> Tree:
    """The files of /config, as the installer writes them."""
    verified = what.fetched.verified
    merged = system.merge([verified])
    stored = system.system_file(merged, system.assign_idmaps({}, merged.groups))
    tree = Tree()
    tree.put(system.SYSTEM_FILE, stored.to_bytes())
    contents = (verified.data, what.fetched.signature, what.fetched.certificate_pem)
    for name, data in zip(system.document_files(verified.sha256), contents, strict=True):
        tree.put(name, data)
    return tree


def system_disk(
    name: str = "vda", what: Content | None = None, *, secret: bytes = KEY, **options: object
) -> Disk:
    """A disk as the installer makes it."""
    what = what or content()
    inside = Volume("ext4", configuration(what))
    parts: list[tuple[str, str, Luks | Volume | Storage]] = [
        (f"{name}1", "esp", Volume("vfat", Tree(), "ESP")),
        (f"{name}2", "machine-config", luks(f"volume of {name}", secret, inside)),
        (f"{name}3", "machine-store", Volume("ext4", Tree({"mos": what.copied()["mos"]}))),
        (f"{name}4", "machine-data", Storage(headers={"zot": volume_header("zot")})),
    ]
    usual = Disk(name, parts, alias="virtio:d2v1AF4", driver="virtio_blk.ko")
    return replace(usual, **options)


def medium(what: Content | None = None, name: str = "sr0", **options: object) -> Disk:
    """An install medium with the manifest of the installer's own root."""
    repositories = (what or content()).copied()
    tree = Tree({f"oci/{place}": repository for place, repository in repositories.items()})
    tree.put("machineos.json", MediumIndex(version=1, live="machine/install:1.0.0").to_bytes())
    usual = Disk(name, whole=Volume("iso9660", tree, "OCI-BOOT"), optical=True)
    return replace(usual, **options)


def carrier(serial: str = SERIAL, name: str = "vdb", **options: object) -> Disk:
    """A small disk with a device identity."""
    tree = Tree()
    tree.put("cert.pem", device_pem(serial))
    tree.put("privkey.pem", device_key())
    usual = Disk(name, whole=Volume("vfat", tree, "trust-data"))
    return replace(usual, **options)


def machine(mode: Mode = "run", **changes: object) -> FakeMachine:
    """A machine that comes up in this mode."""
    disks: dict[Mode, Callable[[], list[Disk]]] = {
        "run": lambda: [system_disk()],
        "install": lambda: [medium()],
        "provision": lambda: [carrier()],
    }
    usual = FakeMachine(
        uki=uki(mode),
        tpm=FakeTpm() if mode == "provision" else provisioned_tpm(),
        firmware=firmware(),
        secure_boot=SECURE_BOOT,
        serial=SERIAL,
        command_line=LINE,
        disks=disks[mode](),
        wall=NOW + timedelta(minutes=1),
    )
    return replace(usual, **changes)


# -- looking into a machine, to spoil it


def changed(change: Callable[[FakeMachine], object]) -> FakeMachine:
    """Return a machine of mode run that something was done to."""
    made = machine()
    change(made)
    return made


def config_of(made: FakeMachine) -> Luks:
    """Return the configuration volume of the first disk."""
    found = made.disks[0].parts[1][2]
    assert isinstance(found, Luks)
    return found


def store_of(made: FakeMachine) -> MemoryRepository:
    """Return the image store of the first disk, or of the medium."""
    if made.disks[0].whole is not None:
        return made.disks[0].whole.tree.repositories["oci/mos"]
    volume = made.disks[0].parts[2][2]
    assert isinstance(volume, Volume)
    return volume.tree.repositories["mos"]


def image_of(name: str, what: Content | None = None) -> Digest:
    """Return the digest of the image manifest of a target."""
    (target,) = [one for one in (what or content()).install.targets if one.service_name == name]
    return target.image


def layer_of(name: str, made: FakeMachine, what: Content | None = None) -> Descriptor:
    """Return the layer of a target's image that is mounted."""
    data = blobs(store_of(made))[image_of(name, what)]
    return parse_manifest(data, name=name).layers[-1]


PARTIAL = """\
version: 1
product: default
update_type: partial
targets:
  - service_name: more
    source: "oci:/images:zot"
    version: 2.0.0
    service_type: fs-only
    network:
      type: none
"""


def two_documents(second: Content) -> FakeMachine:
    """Return a machine whose configuration names two documents."""
    made = machine()
    files, extra = config_of(made).plain.tree, configuration(second)
    stored = system.parse_system(files.entries[system.SYSTEM_FILE].data)
    sha256 = second.fetched.verified.sha256
    both = msgspec.structs.replace(stored, manifests=(*stored.manifests, str(sha256)))
    for name in system.document_files(sha256):
        files.put(name, extra.entries[name].data)
    files.put(system.SYSTEM_FILE, both.to_bytes())
    for part in ("_blobs", "_manifests"):
        getattr(store_of(made), part).update(getattr(second.repositories["mos"], part))
    return made


def of_kind(kind: type[FakeTpm], tpm: FakeTpm) -> FakeTpm:
    """Return a TPM of another kind with the same content."""
    return kind(nv=tpm.nv, sealed_for=tpm.sealed_for, owned=tpm.owned)
