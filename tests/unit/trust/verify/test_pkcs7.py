"""The one encoding of a root hash signature, against the library's."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from machineos.core.word import RootHash
from machineos.trust.keys.signer import FileSigner
from machineos.trust.verify.pkcs7 import detached
from vectors.certificates import key

ROOT_HASH = RootHash("0123456789abcdef" * 4)
KEYS = {bits: key("pkcs7", bits) for bits in (1024, 2048, 3072)}
OIDS = st.sampled_from(
    [x509.NameOID.COMMON_NAME, x509.NameOID.ORGANIZATION_NAME, x509.NameOID.SERIAL_NUMBER]
)
Names = list[tuple[x509.ObjectIdentifier, str]]
NAMES = st.lists(
    st.tuples(
        OIDS, st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=60)
    ),
    min_size=1,
    max_size=4,
)


def certificate_of(key: rsa.RSAPrivateKey, serial: int, names: Names) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(oid, text) for oid, text in names])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2030, 1, 1, tzinfo=UTC))
        .sign(key, hashes.SHA256())
    )


def agree(key: rsa.RSAPrivateKey, serial: int, names: Names) -> None:
    certificate = certificate_of(key, serial, names)
    signed = FileSigner(certificate, key).sign_root_hash(ROOT_HASH)
    assert detached(certificate, signed[-key.key_size // 8 :]) == signed


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(sorted(KEYS)), st.integers(1, (1 << 159) - 1), NAMES)
def test_it_is_what_the_signer_writes(bits: int, serial: int, names: Names) -> None:
    """And that is what openssl writes, byte for byte (test_signer)."""
    agree(KEYS[bits], serial, names)


def test_each_length_around_the_longer_form_is_right() -> None:
    """Lengths up to 127 have one byte, others say first how many they have."""
    common, other = x509.NameOID.COMMON_NAME, x509.NameOID.ORGANIZATION_NAME
    for count in range(20, 64):
        agree(KEYS[1024], 1, [(common, "c" * 40), (other, "o" * count)])


@pytest.mark.parametrize("serial", [1, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000])
def test_a_serial_is_a_positive_number(serial: int) -> None:
    agree(KEYS[1024], serial, [(x509.NameOID.COMMON_NAME, "c")])
