"""Signing: one protocol, and its implementation with a key in memory.

The formats are those that the predecessor, the kernel and openssl read: raw RSA PKCS#1 v1.5 with
SHA-256 for manifests, PKCS#7 SignedData (RFC 2315) without attributes for dm-verity root hashes and
IPE policies. All are deterministic: the same input gives the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from machineos.errors import SignatureError
from machineos.trust.keys.x509 import certificate_pem

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import rsa

    from machineos.core.secret import Secret
    from machineos.core.word import RootHash
    from machineos.trust.keys.keyset import KeyPair


class Signer(Protocol):
    """Whoever holds a private key: a file here, a token or a service elsewhere."""

    @property
    def certificate_pem(self) -> bytes:
        """The certificate of the key."""
        ...

    def sign(self, data: bytes) -> bytes:
        """Return the raw RSA PKCS#1 v1.5 SHA-256 signature of ``data``."""
        ...

    def sign_root_hash(self, root_hash: RootHash) -> bytes:
        """Return the PKCS#7 DER that dm-verity wants for a root hash: detached, over its hex text,
        without certificate."""
        ...

    def sign_content(self, data: bytes) -> bytes:
        """Return a PKCS#7 DER with ``data`` and the certificate inside, as IPE wants a policy."""
        ...


class FileSigner:
    """Signs with a private key that was read from a file."""

    def __init__(self, certificate: x509.Certificate, key: rsa.RSAPrivateKey) -> None:
        if certificate.public_key() != key.public_key():
            raise SignatureError("the private key does not belong to the certificate")
        self._certificate = certificate
        self._key = key

    @classmethod
    def open(cls, pair: KeyPair, passphrase: Secret | None = None) -> FileSigner:
        """Read a key pair. Raises: MissingError, UsageError (passphrase), SignatureError (the files
        are not a certificate and its key)."""
        certificate, key = pair.certificate(), pair.private_key(passphrase)
        try:
            return cls(certificate, key)
        except SignatureError as error:
            raise SignatureError(f"{pair.key_path} is not the key of {pair.cert_path}") from error

    def __repr__(self) -> str:
        return f"FileSigner({self._certificate.subject.rfc4514_string()!r})"

    @property
    def certificate_pem(self) -> bytes:
        """The certificate of the key."""
        return certificate_pem(self._certificate)

    def sign(self, data: bytes) -> bytes:
        """Return the raw RSA PKCS#1 v1.5 SHA-256 signature of ``data``."""
        return self._key.sign(data, padding.PKCS1v15(), hashes.SHA256())

    def sign_root_hash(self, root_hash: RootHash) -> bytes:
        """Return the PKCS#7 DER that dm-verity wants."""
        return self._pkcs7(
            root_hash.encode("ascii"),
            [pkcs7.PKCS7Options.DetachedSignature, pkcs7.PKCS7Options.NoCerts],
        )

    def sign_content(self, data: bytes) -> bytes:
        """Return a PKCS#7 DER with ``data`` and the certificate inside."""
        return self._pkcs7(data, [])

    def _pkcs7(self, data: bytes, options: list[pkcs7.PKCS7Options]) -> bytes:
        return (
            pkcs7.PKCS7SignatureBuilder()
            .set_data(data)
            .add_signer(self._certificate, self._key, hashes.SHA256())
            .sign(
                Encoding.DER,
                [pkcs7.PKCS7Options.Binary, pkcs7.PKCS7Options.NoAttributes, *options],
            )
        )
