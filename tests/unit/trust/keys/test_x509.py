from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509 as library
from cryptography.hazmat.primitives import serialization

from machineos.core.secret import Secret
from machineos.errors import SignatureError, UsageError
from machineos.trust.keys import x509
from vectors import certificates as make
from vectors.certificates import NOW

ROOT = make.key("root")


def self_signed(profile: x509.Profile, now: datetime) -> library.Certificate:
    return x509.issue(
        profile, x509.name("R"), ROOT.public_key(), issuer=None, issuer_key=ROOT, now=now
    )


def test_leap_day() -> None:
    made = self_signed(x509.MANIFEST_CA, datetime(2028, 2, 29, 12, tzinfo=UTC))
    assert made.not_valid_after_utc == datetime(2053, 2, 28, 12, tzinfo=UTC)


def test_starts_no_earlier_and_ends_no_later_than_its_issuer() -> None:
    ca = self_signed(x509.MANIFEST_CA, NOW)
    for now in (NOW - timedelta(days=9), NOW + timedelta(days=365 * 24)):
        leaf = x509.issue(
            x509.PUBLISHER, x509.name("L"), make.key("leaf").public_key(),
            issuer=ca, issuer_key=ROOT, now=now,
        )  # fmt: skip
        assert leaf.not_valid_before_utc >= ca.not_valid_before_utc
        assert leaf.not_valid_after_utc <= ca.not_valid_after_utc


def test_the_key_must_be_the_issuers() -> None:
    ca = self_signed(x509.MANIFEST_CA, NOW)
    with pytest.raises(SignatureError):
        x509.issue(
            x509.PUBLISHER, x509.name("L"), ROOT.public_key(),
            issuer=ca, issuer_key=make.key("leaf"), now=NOW,
        )  # fmt: skip
    with pytest.raises(SignatureError):
        x509.issue(
            x509.PUBLISHER, x509.name("L"), ROOT.public_key(),
            issuer=None, issuer_key=make.key("leaf"), now=NOW,
        )  # fmt: skip


def test_the_authority_identifier_is_the_issuers_own() -> None:
    for subject_key, expected in (
        (b"ca-identifier", b"ca-identifier"),
        (None, library.SubjectKeyIdentifier.from_public_key(make.key("ca").public_key()).digest),
    ):
        leaf = x509.issue(
            x509.PUBLISHER, x509.name("L"), ROOT.public_key(),
            issuer=make.ca().but(subject_key=subject_key).build(), issuer_key=make.key("ca"),
            now=NOW,
        )  # fmt: skip
        found = leaf.extensions.get_extension_for_class(library.AuthorityKeyIdentifier)
        assert found.value.key_identifier == expected


def test_names_leave_out_what_is_empty() -> None:
    assert x509.name("a", organizations=[""]).rfc4514_string() == "CN=a"


def test_keys_come_back() -> None:
    for passphrase in (None, Secret(b"x y")):
        pem = x509.key_pem(ROOT, passphrase)
        assert x509.is_protected(pem) == (passphrase is not None)
        assert x509.load_key(pem, passphrase, what="k").public_key() == ROOT.public_key()


def test_openssls_older_encryption_counts_as_protected() -> None:
    pem = ROOT.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.BestAvailableEncryption(b"x"),
    )
    with pytest.raises(UsageError, match="protected"):
        x509.load_key(pem, None, what="k")


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        make.ec_key().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        x509.key_pem(make.key("publisher-1024", 1024), None),
    ],
    ids=["empty", "not a key", "not RSA", "1024 bits"],
)
def test_bad_keys(pem: bytes) -> None:
    with pytest.raises(SignatureError):
        x509.load_key(pem, None, what="k")
