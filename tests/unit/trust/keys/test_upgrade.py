"""A keyset of the shape that the predecessor's public one has: no certificate of the manifest CA by
uki-production, which is no CA there, and private keys that everybody may read."""

from __future__ import annotations

import stat
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fakes.randomness import FixedRandomness
from machineos.core.secret import Secret
from machineos.errors import MissingError, SignatureError, UsageError
from machineos.trust.keys import x509 as issuing
from machineos.trust.keys.contents import ROLES, Issued, cross_entry
from machineos.trust.keys.keyset import Keyset, create_keyset
from machineos.trust.keys.upgrade import close_keys, exposed_keys, issue_missing
from vectors.clock import FixedClock

START = datetime(2023, 1, 1, tzinfo=UTC)


@pytest.fixture
def public(own: Keyset) -> Keyset:
    """Facts of project-machine/keys: key usage and extended key usage alone, modes 0644."""
    own.cross_certificate_path.unlink()
    pair = own.key("uki-production")
    key = pair.private_key(None)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "UKI Production")])
    code = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
    usage = x509.KeyUsage(True, *[False] * 8)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), 7)
        .not_valid_before(START)
        .not_valid_after(START.replace(year=2048))
        .add_extension(usage, critical=True)
        .add_extension(code, critical=False)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    pair.cert_path.write_bytes(issuing.certificate_pem(made))
    for path in own.root.rglob("privkey.pem"):
        path.chmod(0o644)
    return own


def test_the_missing_certificate_is_issued(public: Keyset, clock: FixedClock) -> None:
    with pytest.raises(MissingError) as caught:
        public.cross_certificate_pem()
    assert caught.value.hint == "have it issued: trust keyset upgrade k"
    assert issue_missing(public, clock=clock, passphrase=None) == [public.cross_certificate_path]
    cross = x509.load_pem_x509_certificate(public.cross_certificate_pem())
    ca, uki = (public.key(role).certificate() for role in ("manifest-ca", "uki-production"))
    assert (cross.subject, cross.public_key()) == (ca.subject, ca.public_key())
    assert cross.issuer == uki.subject
    assert cross.not_valid_after_utc <= uki.not_valid_after_utc
    signer = uki.public_key()
    assert isinstance(signer, rsa.RSAPublicKey)
    signer.verify(cross.signature, cross.tbs_certificate_bytes, padding.PKCS1v15(), hashes.SHA256())
    before = public.cross_certificate_pem()
    assert issue_missing(public, clock=clock, passphrase=None) == []
    assert public.cross_certificate_pem() == before


def test_a_keyset_of_ours_lacks_nothing(one: Keyset, clock: FixedClock) -> None:
    assert issue_missing(one, clock=clock, passphrase=None) == []
    assert exposed_keys(one) == []


def test_private_keys_that_others_can_read(public: Keyset) -> None:
    exposed = exposed_keys(public)
    assert {str(path.relative_to(public.root)) for path in exposed} == {
        "manifest/default/privkey.pem", *(f"{role}/privkey.pem" for role in ROLES),
    }  # fmt: skip
    assert close_keys(public) == exposed
    assert exposed_keys(public) == close_keys(public) == []
    assert {stat.S_IMODE(path.stat().st_mode) for path in exposed} == {0o600}


def test_those_of_machines_too(public: Keyset) -> None:
    close_keys(public)
    folder = public.project("default").sudi_root / "SN1"
    folder.mkdir()
    (folder / "privkey.pem").write_bytes(b"")
    (folder / "privkey.pem").chmod(0o640)
    assert exposed_keys(public) == [folder / "privkey.pem"]


def test_a_key_of_another(public: Keyset, two: Keyset, clock: FixedClock) -> None:
    public.key("uki-production").key_path.write_bytes(
        two.key("uki-production").key_path.read_bytes()
    )
    with pytest.raises(SignatureError, match="does not belong"):
        issue_missing(public, clock=clock, passphrase=None)
    assert not public.cross_certificate_path.exists()


def test_a_protected_keyset(clock: FixedClock, tmp_path_factory: pytest.TempPathFactory) -> None:
    made = create_keyset(
        tmp_path_factory.mktemp("keys"), "p", organization="A", passphrase=Secret(b"open"),
        clock=clock, random=FixedRandomness("p"),
    )  # fmt: skip
    made.cross_certificate_path.unlink()
    with pytest.raises(UsageError, match="passphrase"):
        issue_missing(made, clock=clock, passphrase=None)
    assert issue_missing(made, clock=clock, passphrase=Secret(b"open"))


def test_a_key_that_is_elsewhere_is_exposed_to_nobody(public: Keyset) -> None:
    """It may be on a token, or with somebody else."""
    gone = public.key("uki-production").key_path
    gone.unlink()
    assert gone not in exposed_keys(public)
    assert exposed_keys(public)


def test_a_manifest_ca_of_another_kind_of_key_is_refused(public: Keyset) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "manifest CA")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 7)
        .not_valid_before(START)
        .not_valid_after(START.replace(year=2048))
        .sign(key, hashes.SHA256())
    )
    uki = public.key("uki-production")
    with pytest.raises(SignatureError, match="has no RSA key"):
        cross_entry(made, Issued(uki.certificate(), uki.private_key(None)), START)
