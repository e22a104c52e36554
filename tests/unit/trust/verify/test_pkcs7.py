from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from machineos.trust.keys.signer import FileSigner
from machineos.trust.verify.pkcs7 import detached

ROOT_HASH = "0123456789abcdef" * 4
KEYS = {bits: rsa.generate_private_key(65537, bits) for bits in (1024, 2048, 3072)}
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


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(sorted(KEYS)), st.integers(1, (1 << 159) - 1), NAMES)
def test_it_is_what_the_signer_writes(
    bits: int, serial: int, names: list[tuple[x509.ObjectIdentifier, str]]
) -> None:
    """And that is what openssl writes, byte for byte (test_signer)."""
    key = KEYS[bits]
    name = x509.Name([x509.NameAttribute(oid, text) for oid, text in names])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2030, 1, 1, tzinfo=UTC))
        .sign(key, hashes.SHA256())
    )
    signed = FileSigner(certificate, key).sign_root_hash(ROOT_HASH)
    assert detached(certificate, signed[-bits // 8 :]) == signed
