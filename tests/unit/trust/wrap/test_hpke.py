"""RFC 9180 by its own vectors (appendix A.1.1 and A.2.1), and what must not open."""

from __future__ import annotations

import pytest

from machineos.core.secret import Secret
from machineos.errors import VerificationError
from machineos.trust.wrap.hpke import OVERHEAD, derive_private, open_sealed, public_key, seal
from machineos.trust.wrap.storage import integrity_key, sealing_key

INFO = b"Ode on a Grecian Urn"
PLAIN = b"Beauty is truth, truth beauty"
AAD = b"Count-0"
# A.2.1: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305, base mode.
EPHEMERAL = bytes.fromhex("f4ec9b33b792c372c1d2c2063507b684ef925b8c75a42dbcbf57d63ccd381600")
SENT = bytes.fromhex("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a")
PUBLIC = bytes.fromhex("4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a")
PRIVATE = bytes.fromhex("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb")
ENCRYPTED = bytes.fromhex(
    "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28"
)
SEALED = SENT + ENCRYPTED


def test_what_the_rfc_seals_is_sealed_so() -> None:
    sealed = seal(PUBLIC, Secret(PLAIN), info=INFO, aad=AAD, random=lambda _: EPHEMERAL)
    assert sealed == SEALED
    assert len(sealed) == len(PLAIN) + OVERHEAD


def test_what_the_rfc_sealed_is_opened() -> None:
    assert open_sealed(Secret(PRIVATE), SEALED, info=INFO, aad=AAD).reveal() == PLAIN


def test_the_private_key_of_the_rfc_follows_from_its_material() -> None:
    """A.1.1, whose KEM is the same."""
    material = bytes.fromhex("6db9df30aa07dd42ee5e8181afdb977e538f5e1fec8a06223f33f7013e525037")
    private = derive_private(Secret(material))
    assert private.reveal().hex() == (
        "4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8"
    )
    assert public_key(private).hex() == (
        "3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d"
    )


@pytest.mark.parametrize("at", [0, 31, 32, len(SEALED) - 1])
def test_a_changed_byte_does_not_open(at: int) -> None:
    changed = SEALED[:at] + bytes((SEALED[at] ^ 1,)) + SEALED[at + 1 :]
    with pytest.raises(VerificationError, match="not sealed for this machine"):
        open_sealed(Secret(PRIVATE), changed, info=INFO, aad=AAD)


@pytest.mark.parametrize(("info", "aad"), [(b"other", AAD), (INFO, b"Count-1")])
def test_another_purpose_or_object_does_not_open(info: bytes, aad: bytes) -> None:
    with pytest.raises(VerificationError, match="not sealed for this machine"):
        open_sealed(Secret(PRIVATE), SEALED, info=info, aad=aad)


def test_another_machine_does_not_open() -> None:
    with pytest.raises(VerificationError, match="not sealed for this machine"):
        open_sealed(Secret(bytes(31) + b"\1"), SEALED, info=INFO, aad=AAD)


def test_what_is_shorter_than_key_and_tag_is_cut_short() -> None:
    with pytest.raises(VerificationError, match="cut short"):
        open_sealed(Secret(PRIVATE), SEALED[: OVERHEAD - 1], info=INFO, aad=AAD)


def test_a_point_of_small_order_is_no_public_key() -> None:
    with pytest.raises(VerificationError, match="names no public key"):
        open_sealed(Secret(PRIVATE), bytes(OVERHEAD), info=INFO, aad=AAD)


@pytest.mark.parametrize("public", [b"short", bytes(32)])
def test_nothing_is_sealed_to_what_is_no_public_key(public: bytes) -> None:
    with pytest.raises(VerificationError, match="names no public key"):
        seal(public, Secret(PLAIN), info=INFO, aad=AAD, random=lambda _: EPHEMERAL)


def test_what_follows_from_the_storage_key_is_fixed() -> None:
    """A disk that was made yesterday has to open tomorrow."""
    key = Secret(bytes(range(32)))
    assert integrity_key(key).reveal().hex() == INTEGRITY
    assert sealing_key(key).reveal().hex() == SEALING
    assert len({key.reveal().hex(), INTEGRITY, SEALING}) == 3


INTEGRITY = "14d8a42c2530d7dfdb07308814e0f625313ff6499c2b7f57921aa753ccdff4db"
SEALING = "b3e1442441c2dbc2fa94449755d81a30d650dbc8cba118e44950eccd5255fc2d"
