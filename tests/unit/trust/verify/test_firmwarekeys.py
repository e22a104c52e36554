"""Which keys of the firmware's the kernel may hold: decided on their descriptions."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from machineos.errors import BootError, SignatureError
from machineos.trust.verify.firmwarekeys import check_firmware_keys, issuing_key
from vectors.certificates import NOW, ca, key

# Of a guest: the two keyrings as they are, and .machine after somebody enrolled a CA in shim.
OURS = "tests: UKI Production: fa98a1d146971fa3a5ed4d665ced5bf24360e310"
DB = "tests: UEFI DB: d0c6f52986641118b8b7b22a1a53fc7c21a047e1"
FOREIGN = "foreign: b5b8987f2c616c096b30012a9167d2dec79e4a40"


def cross(identifier: bytes | None = bytes.fromhex(OURS.rpartition(" ")[2])) -> bytes:
    recipe = ca().but(authority=identifier)
    return recipe.build().public_bytes(Encoding.DER)


CROSS = cross()


def without_identifier() -> bytes:
    """A certificate that names its issuer's certificate, and not the key."""
    named = [x509.DirectoryName(x509.Name([]))]
    made = x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(x509.Name([]))
    made = made.public_key(key("ca").public_key()).serial_number(1)
    made = made.not_valid_before(NOW).not_valid_after(NOW + timedelta(days=1))
    made = made.add_extension(x509.AuthorityKeyIdentifier(None, named, 1), critical=False)
    return made.sign(key("ca"), hashes.SHA256()).public_bytes(Encoding.DER)


def test_ours_alone() -> None:
    check_firmware_keys((OURS,), (DB,), CROSS)
    assert issuing_key(CROSS) == "fa98a1d146971fa3a5ed4d665ced5bf24360e310"


@pytest.mark.parametrize(
    ("machine", "platform", "words"),
    [
        ((OURS, FOREIGN), (DB,), "2 keys from the firmware in .machine.*'foreign: b5b8987f"),
        ((FOREIGN, OURS), (DB,), "2 keys from the firmware in .machine"),
        ((OURS, OURS), (DB,), "2 keys from the firmware in .machine.*: no other"),
        ((FOREIGN,), (DB,), "1 key from the firmware in .machine"),
        ((), (DB, OURS), "no key from the firmware in .machine"),
        ((OURS,), (), "no key from the firmware in .platform"),
        ((OURS,), (DB, FOREIGN), "2 keys from the firmware in .platform.*'foreign"),
        # A name may say what it likes; what counts stands behind the last colon.
        ((OURS + ": 00",), (DB,), "1 key"),
        (("x" + OURS.rpartition(" ")[2],), (DB,), "1 key"),
        ((OURS.upper(),), (DB,), "1 key"),
        ((".machine",), (DB,), "1 key"),
    ],
)
def test_anything_else(machine: tuple[str, ...], platform: tuple[str, ...], words: str) -> None:
    with pytest.raises(BootError, match=words):
        check_firmware_keys(machine, platform, CROSS)


@given(st.lists(st.text(max_size=60), max_size=4))
def test_any_keys_beside_ours(held: list[str]) -> None:
    """Every one is one too many, whatever it is called."""
    if held:
        with pytest.raises(BootError):
            check_firmware_keys((OURS, *held), (DB,), CROSS)
    with pytest.raises(BootError):
        check_firmware_keys(held, (DB,), CROSS)


@pytest.mark.parametrize("certificate", [b"", b"x", cross(None), without_identifier()])
def test_a_certificate_that_names_no_issuer(certificate: bytes) -> None:
    with pytest.raises(SignatureError, match="names no issuing key"):
        check_firmware_keys((OURS,), (DB,), certificate)
