"""Signatures that the predecessor, the kernel and openssl read, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from machineos.core import run
from machineos.core.word import RootHash
from machineos.errors import MissingError, SignatureError
from machineos.trust.keys.keyset import KeyPair, Keyset
from machineos.trust.keys.signer import FileSigner, Signer

ROOT_HASH = RootHash("0123456789abcdef" * 4)
POLICY = b"policy_name=demo policy_version=0.0.1\nDEFAULT action=ALLOW\n"


@pytest.fixture(scope="module")
def pair(one: Keyset) -> KeyPair:
    return one.project("default").pair


def test_it_is_a_signer(pair: KeyPair) -> None:
    signer: Signer = FileSigner.open(pair)
    assert signer.certificate_pem == pair.certificate_pem()
    signature = signer.sign(b"data")
    assert len(signature) == 256
    public = pair.private_key(None).public_key()
    public.verify(signature, b"data", padding.PKCS1v15(), hashes.SHA256())
    assert signer.sign(b"data") == signature


def openssl(pair: KeyPair, data: bytes, *options: str) -> bytes:
    keys = ["-signer", str(pair.cert_path), "-inkey", str(pair.key_path)]
    argv = ["openssl", "smime", "-sign", "-noattr", "-binary", "-outform", "der", *options, *keys]
    return run.run(argv, input=data, timeout=120).stdout


@pytest.mark.tool("openssl")
def test_root_hash_signature_is_openssls_byte_for_byte(pair: KeyPair) -> None:
    ours = FileSigner.open(pair).sign_root_hash(ROOT_HASH)
    assert ours == openssl(pair, ROOT_HASH.encode(), "-nocerts")


@pytest.mark.tool("openssl")
def test_content_signature_is_openssls_byte_for_byte(one: Keyset) -> None:
    pair = one.key("uefi-db")
    ours = FileSigner.open(pair).sign_content(POLICY)
    assert ours == openssl(pair, POLICY, "-nodetach", "-nosmimecap")


@pytest.mark.tool("openssl")
def test_raw_signature_is_what_the_documented_openssl_command_verifies(
    pair: KeyPair, tmp_path: Path
) -> None:
    (tmp_path / "data").write_bytes(b"data")
    (tmp_path / "data.signed").write_bytes(FileSigner.open(pair).sign(b"data"))
    argv = ["openssl", "x509", "-in", str(pair.cert_path), "-pubkey", "-noout"]
    (tmp_path / "key").write_bytes(run.run(argv, timeout=120).stdout)
    result = run.run(
        ["openssl", "dgst", "-sha256", "-verify", "key", "-signature", "data.signed", "data"],
        cwd=tmp_path,
        timeout=120,
    )
    assert result.text == "Verified OK"


def test_key_and_certificate_must_belong_together(one: Keyset, two: Keyset) -> None:
    mixed = KeyPair(one.key("uefi-db").cert_path, two.key("uefi-db").key_path)
    message = f"^{mixed.key_path} is not the key of {mixed.cert_path}$"
    with pytest.raises(SignatureError, match=message):
        FileSigner.open(mixed)
    with pytest.raises(SignatureError, match="private key does not belong to the certificate"):
        FileSigner(mixed.certificate(), mixed.private_key(None))


def test_missing_files(one: Keyset, tmp_path: Path) -> None:
    good = one.key("uefi-db")
    for pair in (
        KeyPair(tmp_path / "none", good.key_path),
        KeyPair(good.cert_path, tmp_path / "none"),
    ):
        with pytest.raises(MissingError):
            FileSigner.open(pair)


def test_repr_shows_no_key(pair: KeyPair) -> None:
    subject = pair.certificate().subject.rfc4514_string()
    assert subject.startswith("CN=manifest PRODUCT:")
    assert repr(FileSigner.open(pair)) == f"FileSigner('{subject}')"
