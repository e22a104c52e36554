"""Whose signature of a root hash it is: one sequence of bytes is, nothing else."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from changed import replace
from machineos.core.word import RootHash
from machineos.trust.verify.chain import Publisher
from machineos.trust.verify.roothash import is_signature
from unit.document.conftest import NOW, PRODUCT, signed, the_authority
from unit.document.product.test_install import SEED

HASH, OTHER = RootHash("a" * 64), RootHash("b" * 64)


@pytest.fixture(scope="module")
def publisher() -> Publisher:
    return signed(SEED.to_bytes()).publisher


@pytest.fixture(scope="module")
def signature() -> bytes:
    return the_authority().publisher.sign_root_hash(HASH)


def test_the_publishers_own(publisher: Publisher, signature: bytes) -> None:
    assert publisher.product == PRODUCT
    assert is_signature(signature, HASH, publisher)
    assert not is_signature(signature, OTHER, publisher)


def test_another_publishers(publisher: Publisher) -> None:
    theirs = the_authority().other.sign_root_hash(HASH)
    assert not is_signature(theirs, HASH, publisher)


def test_any_other_bytes_around_a_good_signature(publisher: Publisher, signature: bytes) -> None:
    for place in range(len(signature)):
        bad = bytearray(signature)
        bad[place] ^= 1 << place % 8
        assert not is_signature(bytes(bad), HASH, publisher), place
    for other in (
        b"\0" + signature, signature + b"\0", signature[1:], signature[:-1],
        signature + signature, signature[-256:],
    ):  # fmt: skip
        assert not is_signature(other, HASH, publisher)


@pytest.mark.parametrize("blob", [b"", b"x", b"x" * 256, b"x" * 5000])
def test_any_bytes(publisher: Publisher, blob: bytes) -> None:
    assert is_signature(blob, HASH, publisher) is False


def test_a_key_of_another_kind_signs_nothing(publisher: Publisher, signature: bytes) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    builder = x509.CertificateBuilder(
        issuer_name=name, subject_name=name, public_key=key.public_key(), serial_number=1,
        not_valid_before=NOW, not_valid_after=NOW,
    )  # fmt: skip
    der = builder.sign(key, SHA256()).public_bytes(Encoding.DER)
    assert not is_signature(signature, HASH, replace(publisher, certificate_der=der))
