"""The CA of one machine: made as it is taken, and every other certificate or signature refused."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from changed import replace
from machineos.core.secret import Secret
from machineos.errors import BootError, PolicyError, SignatureError
from machineos.trust.seal.hostca import make_host_ca
from machineos.trust.verify.chain import MAX_PEM, DeviceIdentity, verify_sudi
from machineos.trust.verify.hostca import host_ca_extensions, host_ca_name, verify_host_ca
from machineos.trust.verify.pkcs7 import detached
from vectors.certificates import PRODUCT, SUDI_CA_NAME, ca, device, ec_key, key, usage

CA_PEM = ca(SUDI_CA_NAME, "sudi-ca").pem()


def identity_of(serial: str = "SN0001", label: str = "device") -> DeviceIdentity:
    return verify_sudi(device(serial).but(key=key(label)).pem(), ca_pem=CA_PEM, at=None)


def private(label: str = "device") -> Secret:
    return Secret(key(label).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


IDENTITY = identity_of()
KEY, PEM, SIGNATURE = make_host_ca(IDENTITY, private(), random=bytes)
DEVICE = x509.load_der_x509_certificate(IDENTITY.certificate_der)


def signed(certificate: x509.Certificate, label: str = "device") -> bytes:
    der = certificate.public_bytes(Encoding.DER)
    return detached(DEVICE, key(label).sign(der, padding.PKCS1v15(), hashes.SHA256()))


# -- what is made


def test_what_is_made_is_taken() -> None:
    made = verify_host_ca(PEM, SIGNATURE, IDENTITY)
    certificate = x509.load_pem_x509_certificate(PEM)
    assert made.certificate_der == certificate.public_bytes(Encoding.DER)
    assert made.fingerprint.hex == certificate.fingerprint(hashes.SHA256()).hex()
    loaded = load_pem_private_key(KEY.reveal(), None)
    assert loaded.public_key() == certificate.public_key()
    subject = certificate.subject.rfc4514_string()
    assert subject == f"2.5.4.5=PID:{PRODUCT} SN:SN0001,CN=SN0001,OU=machineOS host CA"
    assert certificate.issuer == certificate.subject
    assert certificate.not_valid_after_utc == DEVICE.not_valid_after_utc
    assert certificate.not_valid_before_utc == DEVICE.not_valid_before_utc
    assert certificate.serial_number == 1 << 128
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (
        True, True, 0,
    )  # fmt: skip
    purpose = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert purpose.critical
    assert purpose.value == usage(key_cert_sign=True)


def test_each_is_of_its_own() -> None:
    again = make_host_ca(IDENTITY, private(), random=bytes)
    assert again[0] != KEY
    assert again[1] != PEM
    with pytest.raises(SignatureError, match="was not signed by this device identity"):
        verify_host_ca(again[1], SIGNATURE, IDENTITY)


def test_a_serial_number_of_64_characters() -> None:
    identity = identity_of("S" * 64)
    _, pem, signature = make_host_ca(identity, private(), random=bytes)
    assert verify_host_ca(pem, signature, identity).certificate_der


def test_the_key_must_be_that_of_the_identity() -> None:
    for wrong, words in (
        (private("stranger"), "is not that of the device identity"),
        (Secret(b"no key"), "cannot be read"),
        (
            Secret(ec_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())),
            "is not that of the device identity",
        ),
    ):
        with pytest.raises(BootError, match=words):
            make_host_ca(IDENTITY, wrong, random=bytes)


@pytest.mark.parametrize("names", ["d dmp1", "d dmq1", "d iqmp"])
def test_a_key_that_was_damaged_signs_nothing(names: str) -> None:
    """A bit of it is another, so what it signs would not be of this identity."""
    der = bytearray(key("device").private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    whole = key("device").private_numbers()
    for name in names.split():
        number: int = getattr(whole, name)
        value = number.to_bytes((number.bit_length() + 7) // 8, "big")
        der[der.index(value) + len(value) // 2] ^= 1
    head, foot = b"-----BEGIN PRIVATE KEY-----\n", b"-----END PRIVATE KEY-----\n"
    with pytest.raises(SignatureError, match="signature"):
        make_host_ca(IDENTITY, Secret(head + base64.encodebytes(der) + foot), random=bytes)


@pytest.mark.tool("openssl")
def test_openssl_reads_the_signature(tmp_path: Path) -> None:
    """Another eye on the one encoding; nothing of ours needs that program."""
    names = {"p7s": SIGNATURE, "der": verify_host_ca(PEM, SIGNATURE, IDENTITY).certificate_der,
             "device.pem": DEVICE.public_bytes(Encoding.PEM), "sudi-ca.pem": CA_PEM}  # fmt: skip
    for name, data in names.items():
        (tmp_path / name).write_bytes(data)
    argv = ["openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", "p7s", "-content",
            "der", "-certfile", "device.pem", "-CAfile", "sudi-ca.pem", "-purpose", "any",
            "-no_check_time", "-out", "out"]  # fmt: skip
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").read_bytes() == names["der"]


# -- what is refused


def test_a_signature_has_a_largest_size() -> None:
    for size, words in ((MAX_PEM, "was not signed"), (MAX_PEM + 1, "is larger than")):
        with pytest.raises(SignatureError, match=words):
            verify_host_ca(PEM, bytes(size), IDENTITY)


def test_another_machine_of_the_same_product() -> None:
    """Even one with the same key, which no two have."""
    with pytest.raises(SignatureError, match=r"not in its one encoding|was not signed"):
        verify_host_ca(PEM, SIGNATURE, identity_of("SN0002"))
    with pytest.raises(SignatureError, match="was not signed by this device identity"):
        verify_host_ca(PEM, SIGNATURE, identity_of(label="stranger"))


def test_a_name_of_another_machine() -> None:
    other = replace(IDENTITY, serial="SN0002")
    _, pem, _ = make_host_ca(other, private(), random=bytes)
    certificate = x509.load_pem_x509_certificate(pem)
    with pytest.raises(PolicyError, match="the name of another machine than 'SN0001'"):
        verify_host_ca(pem, signed(certificate), IDENTITY)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data + b"\0",
        lambda data: data[:-1],
        lambda data: b"",
        lambda data: data[-256:],
        lambda data: bytes(20000),
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: b"\x31" + data[1:],
    ],
)
def test_another_signature(change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(SignatureError):
        verify_host_ca(PEM, change(SIGNATURE), IDENTITY)


@given(st.binary(max_size=600))
def test_any_signature(data: bytes) -> None:
    with pytest.raises(SignatureError):
        verify_host_ca(PEM, data, IDENTITY)


@given(st.binary(max_size=600))
def test_any_certificate(data: bytes) -> None:
    with pytest.raises(SignatureError):
        verify_host_ca(data, SIGNATURE, IDENTITY)


def build(
    *,
    signing: ec.EllipticCurvePrivateKey | None = None,
    curve: ec.EllipticCurve | None = None,
    algorithm: hashes.SHA256 | hashes.SHA512 | None = None,
    issuer: x509.Name | None = None,
    end: timedelta = timedelta(0),
    extensions: Callable[[ec.EllipticCurvePublicKey], dict[x509.ExtensionType, bool]] = (
        host_ca_extensions
    ),
) -> x509.Certificate:
    """Return a certificate with one fault, which the identity has signed all the same."""
    private_key = ec.generate_private_key(curve or ec.SECP256R1())
    name = host_ca_name(IDENTITY)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer or name)
        .public_key(private_key.public_key())
        .serial_number(7)
        .not_valid_before(DEVICE.not_valid_before_utc)
        .not_valid_after(DEVICE.not_valid_after_utc + end)
    )
    for extension, critical in extensions(private_key.public_key()).items():
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(signing or private_key, algorithm or hashes.SHA256())


def with_constraints(ca_flag: bool, length: int | None) -> Callable[..., object]:
    def made(public: ec.EllipticCurvePublicKey) -> dict[x509.ExtensionType, bool]:
        rest = dict(list(host_ca_extensions(public).items())[1:])
        return {x509.BasicConstraints(ca=ca_flag, path_length=length): True, **rest}

    return made


def without(kind: type[x509.ExtensionType]) -> Callable[..., object]:
    return lambda public: {
        one: critical
        for one, critical in host_ca_extensions(public).items()
        if not isinstance(one, kind)
    }


def and_more(extension: x509.ExtensionType) -> Callable[..., object]:
    return lambda public: {
        **{
            one: critical
            for one, critical in host_ca_extensions(public).items()
            if one.oid != extension.oid
        },
        extension: False,
    }


OTHER = "may be used for something else than issuing"
FAULTS: dict[str, tuple[dict[str, object], str]] = {
    "another issuer's key": ({"signing": ec_key()}, "is not issued by itself"),
    "another issuer's name": (
        {"issuer": x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])},
        "is not issued by itself",
    ),
    "P-384": ({"curve": ec.SECP384R1()}, "not of P-256"),
    "SHA-512": ({"algorithm": hashes.SHA512()}, "not signed with ECDSA and SHA-256"),
    "longer than the identity": ({"end": timedelta(seconds=1)}, "would outlive"),
    "no CA": ({"extensions": with_constraints(False, None)}, OTHER),
    "deeper": ({"extensions": with_constraints(True, 1)}, OTHER),
    "without end": ({"extensions": with_constraints(True, None)}, OTHER),
    "no constraints": ({"extensions": without(x509.BasicConstraints)}, OTHER),
    "no usage": ({"extensions": without(x509.KeyUsage)}, OTHER),
    "more usage": (
        {"extensions": and_more(usage(key_cert_sign=True, digital_signature=True))}, OTHER,
    ),
    "one more extension": (
        {"extensions": and_more(x509.SubjectAlternativeName([x509.DNSName("x.example")]))}, OTHER,
    ),
}  # fmt: skip


def test_the_control_of_the_faults() -> None:
    certificate = build()
    assert verify_host_ca(
        certificate.public_bytes(Encoding.PEM), signed(certificate), IDENTITY
    ).certificate_der


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_a_certificate_with_one_fault_is_refused_although_the_identity_signed_it(
    name: str,
) -> None:
    changes, words = FAULTS[name]
    certificate = build(**changes)  # type: ignore[arg-type]
    with pytest.raises(SignatureError, match=words):
        verify_host_ca(certificate.public_bytes(Encoding.PEM), signed(certificate), IDENTITY)


def test_an_rsa_certificate_is_none() -> None:
    certificate = device().build()
    with pytest.raises(SignatureError, match="not of P-256"):
        verify_host_ca(certificate.public_bytes(Encoding.PEM), signed(certificate), IDENTITY)


def test_a_key_on_a_curve_that_nobody_knows() -> None:
    """The identity signed it all the same: it is refused for what it is."""
    der = build().public_bytes(Encoding.DER)
    curve = bytes.fromhex("06082a8648ce3d030107")
    assert der.count(curve) == 1
    changed = x509.load_der_x509_certificate(der.replace(curve, curve[:-1] + b"\x7f"))
    with pytest.raises(SignatureError, match="has a key that cannot be read"):
        verify_host_ca(changed.public_bytes(Encoding.PEM), signed(changed), IDENTITY)
