"""Issuing, key by key: ends of lives, names that fit, passphrases, keys that do not belong."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509 as library
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

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


def leaf_of(ca: library.Certificate, now: datetime) -> library.Certificate:
    return x509.issue(
        x509.PUBLISHER, x509.name("L"), make.key("leaf").public_key(),
        issuer=ca, issuer_key=ROOT, now=now,
    )  # fmt: skip


def test_a_life_starts_a_day_early_and_ends_on_the_day() -> None:
    root = self_signed(x509.UEFI_PK, NOW)
    assert root.not_valid_before_utc == NOW - timedelta(days=1)
    assert root.not_valid_after_utc == NOW.replace(year=NOW.year + 50)
    leaf = leaf_of(root, NOW + timedelta(days=2))
    assert leaf.not_valid_before_utc == NOW + timedelta(days=1)
    assert leaf.not_valid_after_utc == NOW.replace(year=NOW.year + 20) + timedelta(days=2)


@pytest.mark.parametrize(
    ("profile", "years", "bits"),
    [
        (x509.MANIFEST_CA, 25, 3072),
        (x509.SUDI_CA, 0, 3072),
        (x509.UEFI_PK, 50, 2048),
        (x509.UEFI_KEK, 50, 2048),
        (x509.UEFI_DB, 25, 2048),
        (x509.UKI, 25, 2048),
        (x509.UKI_PRODUCTION, 25, 2048),
        (x509.UKI_CROSS, 25, 2048),
        (x509.TPM_POLICY, 25, 2048),
        (x509.PUBLISHER, 20, 2048),
        (x509.SUDI, 0, 2048),
    ],
)
def test_a_profile_says_how_long_and_how_large(
    profile: x509.Profile, years: int, bits: int
) -> None:
    """The life of what another one issued may be cut short, so it is not seen there."""
    assert (profile.years, profile.bits) == (years, bits)


def test_a_new_key_is_as_large_as_the_profile_says() -> None:
    numbers = x509.new_key(x509.UKI).public_key().public_numbers()
    assert (numbers.n.bit_length(), numbers.e) == (2048, 65537)


def test_a_life_without_years_lasts_as_long_as_the_predecessors() -> None:
    assert self_signed(x509.SUDI_CA, NOW).not_valid_after_utc == x509.FOREVER
    assert datetime(2099, 12, 31, 23, 0, tzinfo=UTC) == x509.FOREVER


def test_starts_no_earlier_and_ends_no_later_than_its_issuer() -> None:
    ca = self_signed(x509.MANIFEST_CA, NOW)
    early, late = (
        leaf_of(ca, now) for now in (NOW - timedelta(days=9), NOW + timedelta(days=365 * 24))
    )
    assert early.not_valid_before_utc == ca.not_valid_before_utc
    assert late.not_valid_after_utc == ca.not_valid_after_utc


def test_which_extensions_are_critical() -> None:
    leaf = leaf_of(self_signed(x509.MANIFEST_CA, NOW), NOW)
    assert {type(one.value): one.critical for one in leaf.extensions} == {
        library.BasicConstraints: True,
        library.KeyUsage: True,
        library.SubjectKeyIdentifier: False,
        library.AuthorityKeyIdentifier: False,
        library.ExtendedKeyUsage: False,
    }
    assert library.ExtendedKeyUsage not in {
        type(one.value) for one in self_signed(x509.UEFI_PK, NOW).extensions
    }


def test_the_key_must_be_the_issuers() -> None:
    ca = self_signed(x509.MANIFEST_CA, NOW)
    with pytest.raises(SignatureError, match="does not belong to its certificate"):
        x509.issue(
            x509.PUBLISHER, x509.name("L"), ROOT.public_key(),
            issuer=ca, issuer_key=make.key("leaf"), now=NOW,
        )  # fmt: skip
    with pytest.raises(SignatureError, match="does not belong to its certificate"):
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
    full = x509.name("a", unit="b", organizations=["c", "d"], serial="e")
    assert [(part.oid, part.value) for part in full] == [
        (NameOID.ORGANIZATION_NAME, "c"),
        (NameOID.ORGANIZATION_NAME, "d"),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, "b"),
        (NameOID.COMMON_NAME, "a"),
        (NameOID.SERIAL_NUMBER, "e"),
    ]


def test_names_have_64_characters_but_for_the_serial() -> None:
    long = "x" * 64
    assert len(list(x509.name(long, unit=long, organizations=[long], serial=long * 2))) == 4
    for bad in (long + "x", "a\nb", "a\0", "\x7f"):
        for more in ({"unit": bad}, {"organizations": ["a", bad]}):
            with pytest.raises(UsageError, match="does not fit into a certificate's name"):
                x509.name("a", **more)
        with pytest.raises(UsageError):
            x509.name(bad)


def test_a_long_name_is_cut_in_the_message() -> None:
    with pytest.raises(UsageError) as caught:
        x509.name("x" * 300)
    assert caught.value.message.startswith(f"'{'x' * 80}' does not fit")


def test_keys_come_back() -> None:
    for passphrase in (None, Secret(b"x y")):
        pem = x509.key_pem(ROOT, passphrase)
        kind = b"ENCRYPTED PRIVATE KEY" if passphrase else b"PRIVATE KEY"
        assert pem.startswith(b"-----BEGIN " + kind + b"-----\n")
        assert x509.is_protected(pem) == (passphrase is not None)
        assert x509.load_key(pem, passphrase, what="k").public_key() == ROOT.public_key()


def test_certificates_have_two_encodings() -> None:
    made = self_signed(x509.UKI, NOW)
    assert library.load_pem_x509_certificate(x509.certificate_pem(made)) == made
    assert library.load_der_x509_certificate(x509.certificate_der(made)) == made


def test_passphrases_that_do_not_fit() -> None:
    plain, closed = x509.key_pem(ROOT, None), x509.key_pem(ROOT, Secret(b"right"))
    for pem, passphrase, message, hint in (
        (closed, None, "k is protected by a passphrase", "give --passphrase-file"),
        (plain, Secret(b"x"), "k is not protected by a passphrase", "leave out --passphrase-file"),
        (closed, Secret(b"wrong"), "the passphrase does not open k", ""),
    ):
        with pytest.raises(UsageError) as caught:
            x509.load_key(pem, passphrase, what="k")
        assert (caught.value.message, caught.value.hint) == (message, hint)


@pytest.mark.parametrize("bits", [2040, 2047, 2048])
def test_a_key_has_2048_bits_or_more(bits: int) -> None:
    pem = x509.key_pem(make.key(f"of {bits}", bits), None)
    if bits == 2048:
        assert x509.load_key(pem, None, what="k").key_size == 2048
        return
    with pytest.raises(SignatureError, match=r"^k is not an RSA key of 2048 bits or more$"):
        x509.load_key(pem, None, what="k")


def test_openssls_older_encryption_counts_as_protected() -> None:
    pem = ROOT.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.BestAvailableEncryption(b"x"),
    )
    assert x509.is_protected(pem)
    with pytest.raises(UsageError, match="k is protected"):
        x509.load_key(pem, None, what="k")
    assert x509.load_key(pem, Secret(b"x"), what="k").public_key() == ROOT.public_key()


@pytest.mark.parametrize("damaged", ["p", "q", "d", "dmp1", "dmq1", "iqmp", "p q", "d dmp1"])
@pytest.mark.parametrize("bit", [0, 2, 7])
def test_a_damaged_key_is_not_taken(damaged: str, bit: int) -> None:
    """A bit of a number, or of two, has flipped."""
    der, numbers = bytearray(der_of(ROOT)), ROOT.private_numbers()
    for name in damaged.split():
        number: int = getattr(numbers, name)
        value = number.to_bytes((number.bit_length() + 7) // 8, "big")
        der[der.index(value) + len(value) // 2] ^= 1 << bit
    head, foot = b"-----BEGIN PRIVATE KEY-----\n", b"-----END PRIVATE KEY-----\n"
    pem = head + base64.encodebytes(der) + foot
    with pytest.raises(SignatureError) as caught:
        x509.load_key(pem, None, what="k")
    assert caught.value.message in {
        "k is damaged: its numbers do not belong together",
        "k is not a private key in PEM",
    }


def test_a_factor_that_is_one_is_no_factor() -> None:
    whole = ROOT.private_numbers()
    public = whole.public_numbers
    for p, q in ((1, public.n), (public.n, 1)):
        numbers = rsa.RSAPrivateNumbers(p, q, whole.d, 1, 1, 1, public)
        assert not x509._belong_together(numbers)
    assert x509._belong_together(whole)


def der_of(key: rsa.RSAPrivateKey) -> bytes:
    shape, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.DER, shape, none)


@pytest.mark.parametrize(
    ("pem", "message"),
    [
        (b"", "k is not a private key in PEM"),
        (
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "k is not a private key in PEM",
        ),
        (
            make.ec_key().private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
            "k is not an RSA key of 2048 bits or more",
        ),
    ],
    ids=["empty", "not a key", "not RSA"],
)
def test_bad_keys(pem: bytes, message: str) -> None:
    with pytest.raises(SignatureError) as caught:
        x509.load_key(pem, None, what="k")
    assert caught.value.message == message
