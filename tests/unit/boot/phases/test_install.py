"""Mode install: whose medium it may be, what the installer's root finds, and where the key goes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from fakes.bootparts.disks import Disk, Volume
from fakes.bootparts.files import Tree, blobs
from machineos.document.between.medium import MediumIndex
from machineos.trust.seal.layout import Index
from machineos.trust.verify.chain import verify_sudi
from machineos.trust.verify.hostca import verify_host_ca
from unit.boot.ends import SAFE, handed_over, refusal
from unit.boot.worlds import (
    KEY,
    LINE,
    anchors,
    content,
    device_pem,
    foreign_content,
    layer_of,
    machine,
    medium,
    provisioned_tpm,
    store_of,
    system_disk,
)
from vectors.certificates import NOW, OTHER_PRODUCT, key

MISSING = "the install medium OCI-BOOT did not appear within 20 s"


def test_the_key_is_left_for_the_installer_in_the_keyring_and_nowhere_else() -> None:
    outcome = handed_over(machine("install"))
    assert outcome.host.kernel.keyring["machineos:configuration-key"] == KEY
    kept = [arguments for name, arguments in outcome.host.calls if name == "keep_secret"]
    assert [one[0] for one in kept] == [
        "machineos:configuration-key", "machineos:integrity-key", "machineos:host-ca-key",
        "machineos:host-ca-certificate", "machineos:host-ca-signature",
    ]  # fmt: skip
    assert all("hidden" in repr(one) for one in kept)


def test_the_hosts_ca_is_made_before_the_medium_is_looked_at_and_signed_by_the_identity() -> None:
    host = handed_over(machine("install")).host
    names = [name for name, _ in host.calls]
    assert names.index("make_host_ca") < names.index("read_label")
    ring = host.kernel.keyring
    identity = verify_sudi(device_pem(), ca_pem=anchors().sudi_ca, at=None)
    pem, signature = ring["machineos:host-ca-certificate"], ring["machineos:host-ca-signature"]
    made = verify_host_ca(pem, signature, identity)
    private = load_pem_private_key(ring["machineos:host-ca-key"], None)
    certificate = x509.load_der_x509_certificate(made.certificate_der)
    assert private.public_key() == certificate.public_key()
    assert "make_host_ca" not in [name for name, _ in handed_over(machine()).host.calls]


def test_another_key_than_that_of_the_identity_in_the_tpm() -> None:
    made = machine("install")
    made.tpm.nv[Index.SUDI_KEY] = key("stranger").private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    assert refusal(made) == "the private key in the TPM is not that of the device identity"
    made.tpm.nv[Index.SUDI_KEY] = b"no key"
    assert refusal(made) == "the private key of the device identity cannot be read"


def test_a_running_machine_leaves_no_key() -> None:
    assert handed_over(machine()).host.kernel.keyring == {}


def test_the_root_comes_from_the_medium() -> None:
    made = machine("install", disks=[system_disk("aaa"), medium(), system_disk("vda")])
    mounts = {str(one.target): one for one in handed_over(made).host.names.mounts}
    assert mounts["/sysroot/run/machineos/medium"].source == "/dev/sr0"
    assert mounts["/sysroot/run/machineos/medium"].flags == SAFE
    assert mounts["/sysroot"].source == str(layer_of("hostfs", machine("install")).digest)
    assert "/sysroot/config" not in mounts
    assert "/sysroot/atomfs-store" not in mounts


def test_nothing_of_a_disk_is_looked_at_but_its_label() -> None:
    made = machine("install", disks=[system_disk("aaa"), medium()])
    calls = {name for name, _ in handed_over(made).host.calls}
    assert not {"read_header", "open_luks", "list_partitions"} & calls


@pytest.mark.parametrize("at", [1.0, 3.0, 20.9, 21.0])
def test_a_medium_that_comes_late(at: float) -> None:
    outcome = handed_over(machine("install", disks=[medium(at=at)]))
    assert at <= outcome.host.timer <= at + 0.06


def test_a_medium_that_comes_too_late() -> None:
    made = machine("install", disks=[medium(at=21.2)])
    assert refusal(made) == MISSING
    waited = [arguments for name, arguments in made.boot().host.calls if name == "sleep"]
    assert set(waited) == {(0.05,)}
    assert 400 <= len(waited) <= 402


def test_a_medium_behind_a_driver() -> None:
    """Every driver that a device here wants is loaded before it is looked."""
    stick = medium(name="sdb", optical=False, alias="usb:v1", driver="usb.ko")
    made = machine("install", disks=[system_disk(), stick])
    host = handed_over(made).host
    assert {"virtio_blk.ko", "xhci.ko", "usb.ko"} <= host.kernel.modules
    assert "sleep" not in [name for name, _ in host.calls]


def test_an_optical_drive_comes_before_a_disk_of_the_same_label() -> None:
    stick = medium(foreign_content(), name="sda", optical=False)
    made = machine("install", disks=[stick, medium()])
    assert "install medium /dev/sr0 verified" in handed_over(made).lines


def labelled(name: str, **files: bytes) -> Disk:
    """A disk that is only called like an install medium."""
    tree = Tree()
    for path, data in files.items():
        tree.put(path.replace("_", "."), data)
    return Disk(name, whole=Volume("iso9660", tree, "OCI-BOOT"), optical=True)


@pytest.mark.parametrize(
    "decoy",
    [
        Disk("sr0", whole=Volume("udf", Tree(), "OCI-BOOT"), optical=True),
        Disk("sr0", whole=Volume("iso9660", Tree(), "OCI-BOOT2"), optical=True),
        Disk("sr0", optical=True),
        Disk("sr0", whole=Volume("iso9660", Tree(), "OCI-BOOT"), optical=True, broken=True),
        labelled("sr0"),
        labelled("sr0", machineos_json=b"{}"),
        labelled("sr0", machineos_json=MediumIndex(version=2, live="a:b").to_bytes()),
        labelled("sr0", machineos_json=bytes(65537)),
    ],
)
def test_what_is_no_medium_is_passed_over(decoy: Disk) -> None:
    """It leaves no mount behind, and the real one is found beside it."""
    made = machine("install", disks=[decoy])
    outcome = made.boot()
    assert outcome.reason == MISSING
    assert not [one for one in outcome.host.names.mounts if one.kind == "iso9660"]
    decoy.at = 0.0
    handed_over(machine("install", disks=[decoy, medium(name="sr1")]))


def test_an_index_of_just_the_allowed_size() -> None:
    made = machine("install")
    assert made.disks[0].whole is not None
    tree = made.disks[0].whole.tree
    tree.entries["machineos.json"].data = tree.entries["machineos.json"].data.ljust(65536)
    handed_over(made)


def test_the_medium_of_another_product() -> None:
    made = machine("install", disks=[medium(foreign_content())])
    assert refusal(made) == (
        f"signed by the publisher of product {OTHER_PRODUCT}, "
        "not of 11111111-2222-4333-8444-555555555555"
    )


def test_a_medium_that_names_what_is_not_on_it() -> None:
    made = machine("install")
    assert made.disks[0].whole is not None
    index = MediumIndex(version=1, live="machine/other:1.0.0")
    made.disks[0].whole.tree.entries["machineos.json"].data = index.to_bytes()
    assert "machine/other is not an OCI image layout" in refusal(made)


def test_a_live_manifest_that_was_changed() -> None:
    made = machine("install")
    assert made.disks[0].whole is not None
    repository = made.disks[0].whole.tree.repositories["oci/machine/install"]
    digest = content().fetched.descriptor.digest
    blobs(repository)[digest] += b" "
    assert "digest is sha256:" in refusal(made)


def test_a_live_manifest_that_has_expired() -> None:
    """No clock can be trusted here; the clock says that all certificates have ended."""
    handed_over(machine("install", wall=NOW + timedelta(days=4000)))


def test_a_changed_volume_of_the_medium() -> None:
    made = machine("install")
    layer = layer_of("hostfs", made)
    blobs(store_of(made))[layer.digest] = b"hsqs evil"
    assert refusal(made).startswith("hostfs: does not match its root hash ")


def test_an_installer_of_a_machine_that_is_not_ours() -> None:
    for changes in (
        {"serial": "SN0002"},
        {"command_line": f"{LINE} systemd.debug_shell"},
        {"secure_boot": bytes(32)},
        {"tpm": provisioned_tpm(floor="0002")},
    ):
        made = machine("install", **changes)
        assert refusal(made) != ""
        assert "iso9660" not in [one.kind for one in made.boot().host.names.mounts]


def test_the_public_things_are_left_for_the_installer_too() -> None:
    host = handed_over(machine("install")).host
    folder = Path("/sysroot/run/machineos")
    assert host.names.read(folder / "trust/device.pem", 9999) == device_pem()
    assert host.names.read(folder / "trust/manifest-ca.pem", 9999) == anchors().manifest_ca
    assert host.names.entry(folder / "boot.json") is None
    assert host.names.entry(folder / "signatures") is None
    identity = verify_sudi(device_pem(), ca_pem=anchors().sudi_ca, at=None)
    assert identity.serial == "SN0001"
