"""What the installer refuses, and that it writes nothing until all has been verified.

Unsigned, wrongly signed, expired and other-product manifests, wrong digests, no space. The
installer's own command runs in the running appliance, with two empty disks for it to spoil.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Protocol

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from fakes.registry import FakeRegistry, fake_registry
from machineos.core.secret import Secret
from machineos.document.between.medium import (
    CA_CERTIFICATE,
    CA_KEY,
    CA_SIGNATURE,
    INDEX_FILE,
    INSTALL_KEY,
    INTEGRITY_KEY,
)
from machineos.document.product.artifacts import CERTIFICATE, SIGNATURE, install_artifacts
from machineos.oci.registry.client import HttpRegistry, HttpRepository
from machineos.trust.keys.keyset import SystemRandomness, add_project
from machineos.trust.keys.signer import FileSigner
from machineos.trust.seal.hostca import make_host_ca
from machineos.trust.verify.chain import verify_sudi
from vm.appliance import CLOCK, KEYSET, NAME, Bench, manifest_text, publish
from vm.guest import BOOT, Guest

PATH, TAG = NAME.split(":")


class Installer(Protocol):
    """Runs the installer's command, expects that it refuses and returns its lines."""

    def __call__(self, source: str, disk: str = "vdb") -> list[str]:
        """Install from ``source``; an empty ``disk`` leaves the option out."""
        ...


# What the initrd of an install medium leaves in root's keyring, then the command.
SERVICE = b"""
import json, sys
from machineos.core.secret import Secret
from machineos.host.kernel import keyring
with open("/run/secrets.json") as stream:
    for name, value in json.load(stream).items():
        keyring.add_secret(name, Secret(bytes.fromhex(value)))
sys.argv[0] = "mosctl"
from machineos.cli.operator.mosctl import main
main()
"""


def expired(bench: Bench) -> bytes:
    """Return the publisher's certificate as if it had been issued for the year 2020 only."""
    real = bench.project.pair.certificate()
    ca = bench.keyset.key("manifest-ca")
    made = (
        x509.CertificateBuilder()
        .subject_name(real.subject)
        .issuer_name(real.issuer)
        .public_key(real.public_key())
        .serial_number(real.serial_number)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2021, 1, 1, tzinfo=UTC))
    )
    for extension in real.extensions:
        made = made.add_extension(extension.value, extension.critical)
    key = serialization.load_pem_private_key(ca.key_path.read_bytes(), None)
    assert isinstance(key, RSAPrivateKey)
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def registry(bench: Bench) -> Iterator[FakeRegistry]:
    """A registry with the good manifest; the guest sees it at 10.0.2.2."""
    with fake_registry() as server:
        publish(bench, manifest_text(bench), repo=server.host)
        yield server


def secrets(bench: Bench, device: bytes) -> dict[str, str]:
    """Return what the initrd of install mode leaves for the machine of this certificate."""
    (sudi,) = (
        each
        for each in bench.project.list_sudis()
        if each.pair.cert_path.read_bytes().strip() == device.strip()
    )
    identity = verify_sudi(
        device, ca_pem=bench.keyset.key("sudi-ca").cert_path.read_bytes(), at=None
    )
    key, certificate, signature = make_host_ca(
        identity, Secret(sudi.pair.key_path.read_bytes()), random=os.urandom
    )
    return {
        INSTALL_KEY: (b"k" * 32).hex(),
        INTEGRITY_KEY: (b"i" * 32).hex(),
        CA_KEY: key.reveal().hex(),
        CA_CERTIFICATE: certificate.hex(),
        CA_SIGNATURE: signature.hex(),
    }


@pytest.fixture
def installer(live: Guest, bench: Bench) -> Iterator[Installer]:
    """Run the installer's command on the spare disk, and expect that it refuses. What the initrd of
    an install medium leaves is put there, the medium's own file too."""
    live.must("mkdir -p /run/machineos/medium")
    live.put(b"{}", f"/run/machineos/medium/{INDEX_FILE}")
    live.put(SERVICE, "/run/installer.py")
    device = live.must("cat /run/machineos/trust/device.pem").encode()
    live.put(json.dumps(secrets(bench, device)).encode(), "/run/secrets.json")
    unit = "systemd-run --quiet --pipe --wait -p KeyringMode=shared"

    def refuses(source: str, disk: str = "vdb") -> list[str]:
        line = f"{unit} python3 /run/installer.py install --plain-http --disk {disk} {source} 2>&1"
        done = live.sh(line, timeout=BOOT)
        assert done.status not in {0, 1, 126, 127}, done.output
        assert "Traceback" not in done.output
        assert "writing to disk" not in done.output
        if disk != "vda":
            assert (
                live.must(f"od -An -v -tx1 -N 4194304 /dev/{disk} | tr -d ' 0\\n' | wc -c") == "0"
            )
        live.sh("umount /run/machineos/stage")
        return done.output.splitlines()

    yield refuses
    live.must("rm -r /run/machineos/medium")


def place(registry: FakeRegistry, name: str = NAME) -> str:
    return f"10.0.2.2:{registry.server_address[1]}/{name}"


def there(registry: FakeRegistry, name: str) -> HttpRepository:
    """Return the repository ``name``, for writing as an attacker would."""
    return HttpRegistry(registry.host, plain_http=True, clock=CLOCK).repository(name)


def good(registry: FakeRegistry) -> dict[str, bytes]:
    """Return install.json, signature and certificate of the good manifest, as published."""
    found = {}
    for (name, _), (_, data) in registry.manifests.items():
        manifest = json.loads(data)
        kind = manifest.get("artifactType")
        if name == PATH and kind is not None:
            found[kind] = registry.blobs[name, manifest["layers"][0]["digest"]]
    return found


def put(
    registry: FakeRegistry, name: str, data: bytes, signature: bytes, certificate: bytes
) -> None:
    """Publish something in the shape of a manifest under ``name``."""
    made = install_artifacts(data, signature, certificate, created=CLOCK.now())
    repository = there(registry, name)
    made.install.store(repository, tag="1")
    made.certificate.store(repository)
    made.signature.store(repository)


@pytest.mark.attack(
    "registry",
    "a manifest of another product of the same keyset",
    "nothing is installed",
)
def test_a_manifest_of_another_product(
    installer: Installer, registry: FakeRegistry, bench: Bench
) -> None:
    if not (bench.keyset.root / "manifest/other").is_dir():
        add_project(bench.keyset, "other", clock=CLOCK, random=SystemRandomness())
    text = manifest_text(bench).replace("product: default", "product: other")
    publish(bench, text, name="machine/other:1", project=f"{KEYSET}:other", repo=registry.host)
    assert "product" in installer(place(registry, "machine/other:1"))[-1]


@pytest.mark.attack(
    "registry",
    "a manifest whose publisher's certificate has expired",
    "nothing is installed",
)
def test_a_manifest_of_an_expired_publisher(
    installer: Installer, registry: FakeRegistry, bench: Bench
) -> None:
    parts = good(registry)
    data = parts["application/vnd.machine.install"]
    put(registry, "machine/expired", data, parts[SIGNATURE], expired(bench))
    lines = installer(place(registry, "machine/expired:1"))
    assert "expired" in " ".join(lines[-3:]).lower(), lines


@pytest.mark.attack(
    "registry",
    "a manifest without a signature",
    "nothing is installed",
)
def test_an_unsigned_manifest(installer: Installer, registry: FakeRegistry) -> None:
    parts = good(registry)
    data = parts["application/vnd.machine.install"]
    made = install_artifacts(data, parts[SIGNATURE], parts[CERTIFICATE], created=CLOCK.now())
    made.install.store(there(registry, "machine/unsigned"), tag="1")
    assert "is not signed" in " ".join(installer(place(registry, "machine/unsigned:1"))[-2:])


@pytest.mark.attack(
    "registry",
    "a manifest signed by a stranger",
    "nothing is installed",
)
def test_a_manifest_signed_by_somebody_else(
    installer: Installer, registry: FakeRegistry, bench: Bench
) -> None:
    data = good(registry)["application/vnd.machine.install"]
    device = FileSigner.open(bench.project.list_sudis()[0].pair)  # of this keyset, not a publisher
    put(registry, "machine/device", data, device.sign(data), device.certificate_pem)
    assert "signature" in " ".join(installer(place(registry, "machine/device:1"))[-3:]).lower()


@pytest.mark.attack(
    "registry",
    "a changed manifest with the good signature",
    "nothing is installed",
)
def test_a_changed_manifest_with_the_good_signature(
    installer: Installer, registry: FakeRegistry
) -> None:
    parts = good(registry)
    data = parts["application/vnd.machine.install"].replace(b'"registry"', b'"registrx"')
    put(registry, "machine/changed", data, parts[SIGNATURE], parts[CERTIFICATE])
    assert "signature" in " ".join(installer(place(registry, "machine/changed:1"))[-3:]).lower()


@pytest.mark.attack(
    "registry",
    "a layer with other bytes than its digest says",
    "nothing is installed",
)
def test_a_blob_with_a_wrong_digest(installer: Installer, registry: FakeRegistry) -> None:
    name, digest = max(registry.blobs, key=lambda key: len(registry.blobs[key]))
    data = registry.blobs[name, digest]
    registry.blobs[name, digest] = data[:1000] + bytes([data[1000] ^ 1]) + data[1001:]
    try:
        lines = installer(place(registry))
        assert any("of product default verified" in line for line in lines), lines
        assert digest.partition(":")[2][:12] in " ".join(lines[-2:])
    finally:
        registry.blobs[name, digest] = data


def test_a_registry_that_does_not_have_it(installer: Installer, registry: FakeRegistry) -> None:
    assert "machine/none" in " ".join(installer(place(registry, "machine/none:1"))[-2:])


def test_a_disk_that_is_too_small(installer: Installer, registry: FakeRegistry) -> None:
    assert "are needed" in installer(place(registry), "vdc")[-1]


def test_the_disk_of_the_running_system(installer: Installer, registry: FakeRegistry) -> None:
    assert "disk vda is in use" in " ".join(installer(place(registry), "vda")[-2:])
