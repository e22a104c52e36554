"""HPKE against the vectors of RFC 9180, appendix A.2.1, and what must not open."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.core.secret import Secret
from machineos.errors import VerificationError
from machineos.trust.wrap import hpke

INFO = bytes.fromhex("4f6465206f6e2061204772656369616e2055726e")
IKM_E = bytes.fromhex("909a9b35d3dc4713a5e72a4da274b55d3d3821a37e5d099e74a647db583a904b")
IKM_R = bytes.fromhex("1ac01f181fdf9f352797655161c58b75c656a6cc2716dcb66372da835542e1df")
SK_E = bytes.fromhex("f4ec9b33b792c372c1d2c2063507b684ef925b8c75a42dbcbf57d63ccd381600")
SK_R = bytes.fromhex("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb")
PK_R = bytes.fromhex("4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a")
ENC = bytes.fromhex("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a")
PLAIN = b"Beauty is truth, truth beauty"


def test_the_keys_of_the_rfc() -> None:
    for ikm, key in ((IKM_E, SK_E), (IKM_R, SK_R)):
        assert hpke.derive_private_key(Secret(ikm)).reveal() == key
    assert hpke.public_key(Secret(SK_R)) == PK_R
    assert hpke.public_key(Secret(SK_E)) == ENC


def test_the_key_schedule_of_the_rfc() -> None:
    """The appendix has other data beside each message than none, so key and nonce are compared."""
    shared = bytes.fromhex("0bbe78490412b4bbea4812666f7916932b828bba79942424abb65244930d69a7")
    assert hpke._schedule(shared, INFO) == (
        bytes.fromhex("ad2744de8e17f4ebba575b3f5f5a8fa1f69c2a07f6e7500bc60ca6e3e3ec1c91"),
        bytes.fromhex("5c4d98150661b848853b547f"),
    )
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    own = X25519PrivateKey.from_private_bytes(SK_E)
    assert hpke._agree(own, PK_R, ENC + PK_R) == shared
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    key, nonce = hpke._schedule(shared, INFO)
    assert ChaCha20Poly1305(key).encrypt(nonce, PLAIN, b"Count-0") == bytes.fromhex(
        "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28"
    )


def test_what_is_sealed_begins_with_the_ephemeral_key() -> None:
    sealed = hpke.seal(PK_R, Secret(PLAIN), info=INFO, random=lambda _: SK_E)
    assert sealed[:32] == ENC
    assert len(sealed) == len(PLAIN) + hpke.OVERHEAD
    assert hpke.open_sealed(Secret(SK_R), sealed, info=INFO).reveal() == PLAIN


@given(st.binary(max_size=200), st.binary(max_size=50))
def test_whatever_is_sealed_opens(plain: bytes, info: bytes) -> None:
    sealed = hpke.seal(PK_R, Secret(plain), info=info, random=os.urandom)
    assert hpke.open_sealed(Secret(SK_R), sealed, info=info).reveal() == plain
    with pytest.raises(VerificationError):
        hpke.open_sealed(Secret(SK_R), sealed, info=info + b"x")
    with pytest.raises(VerificationError):
        hpke.open_sealed(Secret(SK_E), sealed, info=info)


@given(st.integers(0, len(PLAIN) + hpke.OVERHEAD - 1), st.integers(0, 7))
def test_no_bit_can_be_changed(place: int, bit: int) -> None:
    sealed = bytearray(hpke.seal(PK_R, Secret(PLAIN), info=INFO, random=os.urandom))
    sealed[place] ^= 1 << bit
    if place == 31 and bit == 7:  # the highest bit of a coordinate counts for nothing (RFC 7748, 5)
        sealed[place - 1] ^= 1
    with pytest.raises(VerificationError):
        hpke.open_sealed(Secret(SK_R), bytes(sealed), info=INFO)


@pytest.mark.parametrize("sealed", [b"", ENC, ENC + bytes(15), bytes(32) + bytes(16)])
def test_what_is_nothing_sealed(sealed: bytes) -> None:
    """Too short, or the point of small order, with which every agreement is zero."""
    with pytest.raises(VerificationError, match="what is sealed"):
        hpke.open_sealed(Secret(SK_R), sealed, info=INFO)


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(32), bytes(33)])
def test_nothing_is_sealed_to_what_is_no_key(key: bytes) -> None:
    with pytest.raises(VerificationError, match="names no key"):
        hpke.seal(key, Secret(PLAIN), info=INFO, random=os.urandom)
