"""From the store to the root: images, the kernel's own rules, what is mounted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from changed import replace
from fakes.boot import FakeMachine
from fakes.bootparts.files import blobs, image_content
from fakes.bootparts.kernel import FakeKernel, sign_policy_text
from machineos.boot.facts import IMAGES, SETTINGS, STORE, Facts, Image
from machineos.boot.phases import root
from machineos.boot.phases.fresh import machine_id
from machineos.boot.phases.images import choose_layer
from machineos.boot.steps import MountImage
from machineos.document.model.install import UpdateType
from machineos.document.product.artifacts import ROOT_HASH_SIGNATURE
from machineos.errors import MachineOSError, SignatureError, ToolError, VerificationError
from machineos.host.kernel.ipepolicy import boot_policy_text
from machineos.oci.model.atomfs import NEW_ROOT_HASH, Layer
from machineos.oci.model.documents import parse_manifest
from machineos.trust.verify.chain import verify_sudi
from unit.boot.ends import handed_over, refusal
from unit.boot.worlds import (
    KERNEL,
    PARTIAL,
    UKI_KEY,
    VOLUME,
    anchors,
    changed,
    content,
    device_pem,
    image_of,
    layer_of,
    machine,
    medium,
    publish_content,
    settings,
    signed_again,
    store_of,
    system_disk,
    two_documents,
    with_image,
)
from unit.document.conftest import MemoryRepository
from vectors.certificates import NOW, PRODUCT, key, publisher

RUN = Path("/run/machineos")
STRANGE = "its LUKS header was not written by this machine"
NO_CONFIG = "no configuration volume of this machine: "
Change = Callable[[FakeMachine], object]


# -- images


def test_an_image_is_judged_whoever_read_it() -> None:
    """The host has looked at it too; the phase relies on nobody."""
    found = content()
    target = next(one for one in found.fetched.verified.install.targets if one.nsgroup)
    manifest = parse_manifest(blobs(store_of(machine()))[target.image], name="image")
    (layer,) = manifest.layers
    signatures = {layer.digest: b"signature"}
    assert choose_layer(target, manifest, signatures) == Image(
        target, Layer.of(layer), manifest.config.digest, b"signature"
    )
    two = msgspec.structs.replace(manifest, layers=(layer, layer))
    with pytest.raises(VerificationError, match="has 2 layers, a machine mounts only one"):
        choose_layer(target, two, signatures)
    with pytest.raises(SignatureError, match="nobody signed the root hash"):
        choose_layer(target, manifest, {})


@pytest.mark.parametrize("name", ["hostfs", "bootkit", "zot"])
def test_an_image_manifest_that_is_not_what_was_signed(name: str) -> None:
    made = machine()
    digest = image_of(name)
    good = blobs(store_of(made))[digest]
    blobs(store_of(made))[digest] = good.replace(b'"size":', b'"size": ', 1)[:-1] + b"}"
    assert refusal(made).startswith(f"image of {name}: ")
    blobs(store_of(made))[digest] = good + b" "
    assert refusal(made) == (
        f"image of {name}: {len(good) + 1} bytes, the manifest says {len(good)}"
    )


def test_an_image_that_is_not_there() -> None:
    made = machine()
    store_of(made)._manifests.pop(image_of("zot"))
    assert refusal(made) == f"no {str(image_of('zot'))!r}"


def test_an_image_with_two_layers() -> None:
    """Publishing does not let that happen: it is signed here."""
    what = with_image("zot", (b"one", b"two"))
    made = machine(disks=[system_disk(what=what)])
    assert refusal(made) == "image of zot: has 2 layers, a machine mounts only one"


def spoil_signatures(store: MemoryRepository, change: Callable[[bytes], bytes | None]) -> int:
    """Change or drop every signature of a root hash. Returns how many there were."""
    count = 0
    for descriptor in list(store._manifests.values()):
        manifest = parse_manifest(blobs(store)[descriptor.digest], name="x")
        if manifest.artifact_type != ROOT_HASH_SIGNATURE:
            continue
        for layer in manifest.layers:
            count += 1
            data = change(blobs(store)[layer.digest])
            if data is None:
                store._manifests.pop(descriptor.digest, None)
            else:
                blobs(store)[layer.digest] = data
    return count


def test_an_image_without_a_signed_root_hash() -> None:
    made = machine()
    assert spoil_signatures(store_of(made), lambda _: None) == 4
    reason = refusal(made)
    assert reason.startswith("image of zot: nobody signed the root hash of layer sha256:")


def test_a_service_without_a_signed_root_hash() -> None:
    """Also of what only mosd will open."""
    made = machine()
    store, zot = store_of(made), image_of("zot")
    for descriptor in list(store._manifests.values()):
        subject = parse_manifest(blobs(store)[descriptor.digest], name="x").subject
        if subject is not None and subject.digest == zot:
            store._manifests.pop(descriptor.digest)
    layer = layer_of("zot", made).digest
    assert refusal(made) == f"image of zot: nobody signed the root hash of layer {layer}"


# -- enforce


def with_anchors(made: FakeMachine, **changes: bytes) -> None:
    made.uki = replace(made.uki, anchors=msgspec.structs.replace(anchors(), **changes))


def strangers_cross() -> bytes:
    """A certificate that names the UKI key as its issuer, and is not by it."""
    return publisher().but(authority=UKI_KEY).build().public_bytes(Encoding.DER)


def policy_by(label: str) -> bytes:
    return sign_policy_text(boot_policy_text(1, VOLUME), key(label))


def with_kernel(made: FakeMachine, **changes: object) -> None:
    def change(kernel: FakeKernel) -> None:
        for name, value in changes.items():
            setattr(kernel, name, value)

    made.kernel = change


ENFORCING: dict[str, tuple[Change, str]] = {
    "the firmware gave the kernel another certificate": (
        lambda m: setattr(m, "firmware", publisher().but(subject_key=UKI_KEY).build()),
        "the kernel refuses the IPE policy machineos: EKEYREJECTED",
    ),
    "a kernel without IPE": (
        lambda m: with_kernel(m, ipe=False),
        "the kernel runs without IPE; nothing would be enforced",
    ),
    "permissive": (
        lambda m: with_kernel(m, permissive=True),
        "the kernel has IPE in permissive mode",
    ),
    "a policy that a stranger signed": (
        lambda m: with_anchors(m, ipe_boot=policy_by("stranger")),
        "the kernel refuses the IPE policy machineos: EKEYREJECTED",
    ),
    "a policy that a publisher signed": (
        lambda m: with_anchors(m, ipe_boot=policy_by("publisher")),
        "the kernel refuses the IPE policy machineos: EKEYREJECTED",
    ),
    "a manifest CA that the kernel's certificate does not vouch for": (
        lambda m: with_anchors(m, manifest_ca_uki=strangers_cross()),
        "manifest CA: the kernel does not accept this certificate (ENOKEY): "
        "no key that it trusts vouches for it",
    ),
    "a closed policy that a publisher signed": (
        lambda m: with_anchors(m, ipe_closed=policy_by("publisher")),
        "the kernel refuses the IPE policy machineos: EKEYREJECTED",
    ),
    "a closed policy that is not newer": (
        lambda m: with_anchors(m, ipe_closed=anchors().ipe_boot),
        "the kernel refuses the IPE policy machineos: ESTALE",
    ),
    "no right to load one": (
        lambda m: with_kernel(m, mac_admin=False),
        "the kernel refuses the AppArmor profiles: EPERM",
    ),
}  # fmt: skip


def test_an_image_without_profiles_boots() -> None:
    made = machine()
    with_anchors(made, apparmor=b"")
    outcome = handed_over(made)
    assert "load_profiles" not in [name for name, _ in outcome.host.calls]


@pytest.mark.parametrize("name", sorted(ENFORCING))
def test_the_kernel_does_not_enforce(name: str) -> None:
    change, reason = ENFORCING[name]
    made = changed(change)
    assert refusal(made) == reason
    calls = [call for call, _ in made.boot().host.calls]
    assert "switch_root" not in calls
    if not name.startswith("a closed policy"):
        assert "mount_image" not in calls


def test_the_kernel_trusts_only_who_signed_a_document() -> None:
    """The CA first, then each publisher once, in an order that is always the same."""
    for label in ("publisher", "second publisher", "third publisher"):
        second = publish_content(PARTIAL, by=label)
        host = handed_over(two_documents(second)).host
        trusted = [arguments for name, arguments in host.calls if name == "trust_certificate"]
        publishers = {one.fetched.verified.publisher.certificate_der for one in (content(), second)}
        assert trusted == [
            (anchors().manifest_ca_uki, "manifest CA"),
            *((certificate, "publisher") for certificate in sorted(publishers)),
        ]


# -- root


def test_a_volume_that_was_changed() -> None:
    for name in ("hostfs", "bootkit"):
        made = machine()
        layer = layer_of(name, made)
        blobs(store_of(made))[layer.digest] = image_content("usr/lib/systemd/systemd", note="evil")
        assert refusal(made).startswith(f"{name}: does not match its root hash ")


def test_a_service_that_was_changed_is_left_to_mosd() -> None:
    """A damaged service must not stop the machine."""
    made = machine()
    layer = layer_of("zot", made)
    blobs(store_of(made))[layer.digest] = b"hsqs evil"
    handed_over(made)


def test_a_publisher_that_the_kernel_does_not_know() -> None:
    """The initrd gave it no certificate of theirs: then the volume does not open."""

    class Forgetful(FakeKernel):
        def trust(self, der: bytes, what: str) -> None:
            if what != "publisher":
                super().trust(der, what)

    def change(kernel: FakeKernel) -> None:
        kernel.__class__ = Forgetful

    reason = refusal(machine(kernel=change))
    assert reason.startswith("hostfs: the kernel refuses the signature of root hash ")


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize(
    "refused",
    [
        SignatureError("nobody signed it", hint="publish it again", rule="image-signed"),
        ToolError("no such device", hint="load its driver"),
    ],
)
def test_a_mount_that_fails_is_told_with_its_class_hint_and_rule(
    refused: MachineOSError, place: int
) -> None:
    names = ("hostfs", "bootkit")
    targets = {one.service_name: one for one in content().install.targets}
    layers = {name: Layer.of(layer_of(name, machine())) for name in names}
    images = tuple(Image(targets[name], layers[name], layers[name].digest, b"s") for name in names)
    facts = Facts().plus(SETTINGS, settings()).plus(STORE, Path("/store")).plus(IMAGES, images)
    talk = root.PHASE.talk(facts)
    step = next(talk)
    while not (isinstance(step, MountImage) and step.layer == layers[names[place]]):
        step = talk.send(None)
    with pytest.raises(MachineOSError) as caught:
        talk.throw(refused)
    assert type(caught.value) is type(refused)
    assert caught.value.message == f"{names[place]}: {refused.message}"
    assert (caught.value.hint, caught.value.rule) == (refused.hint, refused.rule)
    assert caught.value.__cause__ is refused


@pytest.mark.parametrize("needed", ["hostfs", "bootkit"])
def test_a_generation_without(needed: str) -> None:
    """Publishing does not let that happen: the document is made here."""
    targets = tuple(one for one in content().install.targets if one.service_name != needed)
    install = msgspec.structs.replace(content().install, targets=targets)
    made = machine(disks=[system_disk(what=signed_again(install, content()))])
    assert refusal(made) == f"the manifests together: has no target {needed}"


@pytest.mark.parametrize("needed", ["hostfs", "bootkit"])
@pytest.mark.parametrize("kind", ["complete", "partial"])
def test_an_install_medium_without(needed: str, kind: UpdateType) -> None:
    """No document can leave out what the installer runs from, not even one that may be partial."""
    targets = tuple(one for one in content().install.targets if one.service_name != needed)
    install = msgspec.structs.replace(content().install, targets=targets, update_type=kind)
    again = signed_again(install, content())
    made = machine("install", disks=[medium(again)])
    assert refusal(made) == f"install medium /dev/sr0: has no target {needed}"


def test_modules_that_are_not_those_of_this_image() -> None:
    """The publisher signed them, and still the kernel's policy does not name them."""
    other = image_content(folders=("usr/lib/modules/6.1.0", "usr/lib/firmware"))
    what = publish_content(modules=other)
    made = machine(disks=[system_disk(what=what)])
    found = layer_of("bootkit", made, what).annotations[NEW_ROOT_HASH]
    assert refusal(made) == (
        f"the bootkit's modules are not those of this kernel image: root hash {found}, not {VOLUME}"
    )


@pytest.mark.parametrize("missing", ["usr/lib/modules", "usr/lib/firmware"])
def test_a_root_without_a_place_for_them(missing: str) -> None:
    places = {"etc", "var", "usr/lib/modules", "usr/lib/firmware"} - {missing}
    bare = image_content("usr/lib/systemd/systemd", folders=tuple(sorted(places)))
    made = machine(disks=[system_disk(what=publish_content(hostfs=bare))])
    assert refusal(made) == f"the root file system: has no folder /{missing}"


def test_modules_and_firmware_are_seen_in_the_root() -> None:
    host = handed_over(machine()).host
    assert host.is_folder(Path(f"/sysroot/usr/lib/modules/{KERNEL}"))
    assert host.is_folder(Path(f"/sysroot/run/machineos/modules/usr/lib/modules/{KERNEL}"))
    assert host.names.at(Path("/sysroot/usr/lib/firmware")) is not None


def test_what_mounting_takes_is_loaded() -> None:
    """Squashfs is always there; EROFS comes as a module, and is not there without."""
    assert "erofs.ko" not in handed_over(machine()).host.kernel.modules
    for name in ("hostfs", "bootkit"):
        made = machine(disks=[system_disk(what=publish_content(erofs=name))])
        assert "erofs.ko" in handed_over(made).host.kernel.modules


# -- fresh


def test_the_machine_has_its_own_id() -> None:
    outcome = handed_over(machine())
    found = outcome.host.names.read(Path("/sysroot/etc/machine-id"), 100)
    identity = verify_sudi(device_pem(), ca_pem=anchors().sudi_ca, at=NOW)
    assert found == machine_id(identity).encode() + b"\n"
    other = verify_sudi(device_pem("SN0002"), ca_pem=anchors().sudi_ca, at=NOW)
    assert machine_id(other) != machine_id(identity)
    text = f"machineos machine-id {PRODUCT} SN0001"
    digest = hashlib.sha256(text.encode()).digest()
    assert machine_id(identity) == UUID(bytes=digest[:16], version=4).hex


def test_public_certificates_are_left() -> None:
    host = handed_over(machine()).host
    folder = Path("/sysroot/run/machineos/trust")
    for name, expected in (
        ("manifest-ca.pem", anchors().manifest_ca),
        ("sudi-ca.pem", anchors().sudi_ca),
        ("device.pem", device_pem()),
    ):
        entry = host.names.entry(folder / name)
        assert entry is not None
        assert (entry.data, entry.mode) == (expected, 0o644)
