"""Signed EFI binaries: what verifies, what leaves nothing, and where the key never is."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from machineos.core.secret import Secret
from machineos.errors import MissingError, SignatureError, ToolError, UsageError
from machineos.trust.keys import efi, x509
from machineos.trust.keys.keyset import KeyPair, Keyset
from vectors import certificates as make
from vectors.pe import efi_binary

needs_sbsign = pytest.mark.tool("sbsign")


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    path = tmp_path / "app.efi"
    path.write_bytes(efi_binary(b"\xc3" * 700))
    return path


@pytest.fixture
def signed(binary: Path, one: Keyset) -> Path:
    path = binary.with_name("signed.efi")
    efi.sign_efi(binary, path, one.key("uefi-db"))
    return path


@needs_sbsign
def test_what_was_signed_is_for_everybody_to_read(binary: Path, one: Keyset) -> None:
    before = os.umask(0o077)
    try:
        efi.sign_efi(binary, binary, one.key("uefi-db"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(binary.stat().st_mode) == 0o644


@needs_sbsign
def test_a_signature_that_does_not_verify_leaves_nothing(tmp_path: Path, binary: Path) -> None:
    """The signing program does not look at the certificate, the verifying one refuses it."""
    odd = make.publisher().but(
        issuer_name=None, issuer_key=None, extra=((make.UNKNOWN_EXTENSION, True),)
    )
    pair = KeyPair(tmp_path / "cert.pem", tmp_path / "privkey.pem")
    pair.cert_path.write_bytes(odd.pem())
    pair.key_path.write_bytes(x509.key_pem(make.key("publisher"), None))
    target = tmp_path / "out.efi"
    with pytest.raises(SignatureError) as caught:
        efi.sign_efi(binary, target, pair)
    assert caught.value.message.startswith(f"{target}: not signed by the key of {pair.cert_path}: ")
    names = sorted(entry.name for entry in tmp_path.iterdir())
    assert names == ["app.efi", "cert.pem", "privkey.pem"]


@needs_sbsign
def test_a_long_name_can_be_signed(binary: Path, one: Keyset) -> None:
    target = binary.with_name("x" * 255)
    efi.sign_efi(binary, target, one.key("uefi-db"))
    efi.verify_efi(target, one.key("uefi-db").cert_path)


@needs_sbsign
def test_signatures_that_are_there_stay(signed: Path, one: Keyset) -> None:
    efi.sign_efi(signed, signed, one.key("uefi-pk"))
    for role in ("uefi-db", "uefi-pk"):
        efi.verify_efi(signed, one.key(role).cert_path)


def test_the_key_is_in_memory_for_the_length_of_the_block() -> None:
    with efi._in_memory(b"the key") as descriptor:
        assert stat.S_IMODE(os.fstat(descriptor).st_mode) == 0o600
        assert os.readlink(f"/proc/self/fd/{descriptor}").startswith("/memfd:key")  # noqa: PTH115
        assert not os.get_inheritable(descriptor)
        assert Path(f"/proc/self/fd/{descriptor}").read_bytes() == b"the key"
        assert os.read(descriptor, 99) == b"the key"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


@needs_sbsign
def test_signed_verifies(signed: Path, one: Keyset, tmp_path: Path) -> None:
    efi.verify_efi(signed, one.key("uefi-db").cert_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["app.efi", "signed.efi"]


@needs_sbsign
@pytest.mark.parametrize("role", ["uefi-pk", "uki-production", "uki-tpm"])
def test_every_role_can_sign(role: str, binary: Path, one: Keyset) -> None:
    efi.sign_efi(binary, binary, one.key(role))
    efi.verify_efi(binary, one.key(role).cert_path)
    with pytest.raises(SignatureError):
        efi.verify_efi(binary, one.key("uefi-db").cert_path)


@needs_sbsign
def test_unsigned_and_other_keys_are_refused(
    binary: Path, signed: Path, one: Keyset, two: Keyset
) -> None:
    certificate = one.key("uefi-db").cert_path
    with pytest.raises(SignatureError) as caught:
        efi.verify_efi(binary, certificate)
    assert caught.value.message.startswith(f"{binary}: not signed by the key of {certificate}: ")
    for pair in (one.key("uki-production"), one.key("uefi-pk"), two.key("uefi-db")):
        with pytest.raises(SignatureError):
            efi.verify_efi(signed, pair.cert_path)


@needs_sbsign
@pytest.mark.parametrize("position", [0x5A, 0x410, 0x600, -100])
def test_a_flipped_byte_is_refused(position: int, signed: Path, one: Keyset) -> None:
    data = bytearray(signed.read_bytes())
    data[position] ^= 1
    signed.write_bytes(data)
    with pytest.raises(SignatureError):
        efi.verify_efi(signed, one.key("uefi-db").cert_path)


@needs_sbsign
def test_a_signature_that_was_cut_off_is_refused(signed: Path, one: Keyset) -> None:
    data = signed.read_bytes()
    signed.write_bytes(data[:-600])
    with pytest.raises(SignatureError):
        efi.verify_efi(signed, one.key("uefi-db").cert_path)


@needs_sbsign
def test_the_signature_of_another_binary_is_refused(
    signed: Path, binary: Path, one: Keyset
) -> None:
    size = binary.stat().st_size
    other = bytearray(signed.read_bytes())
    other[0x400:size] = efi_binary(b"\xcc" * 700)[0x400:size]
    signed.write_bytes(other)
    with pytest.raises(SignatureError):
        efi.verify_efi(signed, one.key("uefi-db").cert_path)


@needs_sbsign
def test_what_cannot_be_signed_leaves_nothing(
    tmp_path: Path, binary: Path, one: Keyset, two: Keyset
) -> None:
    target = tmp_path / "out.efi"
    text = tmp_path / "text"
    text.write_bytes(b"no binary")
    with pytest.raises(ToolError):
        efi.sign_efi(text, target, one.key("uefi-db"))
    mixed = KeyPair(one.key("uefi-db").cert_path, two.key("uefi-db").key_path)
    message = f"^{mixed.key_path} is not the key of {mixed.cert_path}$"
    with pytest.raises(SignatureError, match=message):
        efi.sign_efi(binary, target, mixed)
    with pytest.raises(MissingError, match=r"none is not a file$"):
        efi.sign_efi(tmp_path / "none", target, one.key("uefi-db"))
    with pytest.raises(MissingError, match=r"none is not a file$"):
        efi.verify_efi(tmp_path / "none", one.key("uefi-db").cert_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["app.efi", "text"]


def test_a_certificate_must_be_one(binary: Path) -> None:
    with pytest.raises(SignatureError, match="exactly one certificate"):
        efi.verify_efi(binary, binary)


@needs_sbsign
def test_a_protected_key_signs_and_never_touches_the_disk(
    own: Keyset, binary: Path, tmp_path: Path
) -> None:
    pair = own.key("uefi-db")
    plain = pair.key_path.read_bytes()
    secret = Secret(b"pass")
    pair.key_path.write_bytes(x509.key_pem(x509.load_key(plain, None, what="k"), secret))
    with pytest.raises(UsageError):
        efi.sign_efi(binary, binary, pair)
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
    efi.sign_efi(binary, tmp_path / "out.efi", pair, passphrase=secret)
    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    efi.verify_efi(tmp_path / "out.efi", pair.cert_path)
    shutil.rmtree(own.root / "manifest")
    body = plain.splitlines()[5]
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and body in p.read_bytes()]
