"""The trust decision: who signed these bytes, and may they.

Pure: bytes in, a value or an error out; no file, no clock, no environment. Chains have exactly two
levels, the CA that the caller names and one certificate under it (RFC 5280 section 6, cut down to
that). Invariant: a ``Publisher`` or ``DeviceIdentity`` that was returned is proved; whatever is
not understood is refused.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, SignatureAlgorithmOID

from machineos.core.digest import Digest
from machineos.errors import PolicyError, SignatureError

if TYPE_CHECKING:
    from datetime import datetime

_E = TypeVar("_E", bound=x509.ExtensionType)
MAX_PEM = 16 << 10
_MIN_BITS = 2048
_MAX_BITS = 8192  # a huge key costs seconds to check with
_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_PUBLISHER = re.compile(rf"manifest PRODUCT:({_UUID})")
_DEVICE = re.compile(rf"PID:({_UUID}) SN:([!-~]{{1,64}})")
_PEM = re.compile(
    rb"\s*-----BEGIN CERTIFICATE-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END CERTIFICATE-----\s*"
)
_ALGORITHMS = {
    SignatureAlgorithmOID.RSA_WITH_SHA256,
    SignatureAlgorithmOID.RSA_WITH_SHA384,
    SignatureAlgorithmOID.RSA_WITH_SHA512,
}
_UNDERSTOOD = {
    x509.BasicConstraints.oid,
    x509.KeyUsage.oid,
    x509.ExtendedKeyUsage.oid,
    x509.SubjectKeyIdentifier.oid,
    x509.AuthorityKeyIdentifier.oid,
}
_UNREADABLE = (
    binascii.Error,
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


class Publisher(msgspec.Struct, frozen=True):
    """The holder of a project key, who may sign the manifests of one product."""

    product: UUID
    common_name: str
    certificate_der: bytes
    fingerprint: Digest


class DeviceIdentity(msgspec.Struct, frozen=True):
    """One machine of a product."""

    product: UUID
    serial: str
    certificate_der: bytes
    fingerprint: Digest


def verify_signed(
    data: bytes,
    signature: bytes,
    certificate_pem: bytes,
    *,
    ca_pem: bytes,
    at: datetime | None,
    product: UUID | None,
) -> Publisher:
    """Return who signed ``data``: a publisher whose certificate this very CA issued.

    ``signature`` is raw RSA PKCS#1 v1.5 with SHA-256. ``at`` is the time (with time zone) at which
    the certificates must be valid, None where no clock can be trusted. ``product`` is the product
    that the publisher must speak for, None for any.

    Raises: SignatureError (chain, usage, validity or signature), PolicyError (another product).
    """
    certificate = parse_certificate(certificate_pem, what="the publisher's certificate")
    ca = parse_certificate(ca_pem, what="the manifest CA")
    _check_chain(certificate, ca, at=at, usage=ExtendedKeyUsageOID.CODE_SIGNING)
    publisher = _publisher(certificate)
    check_signature(certificate, data, signature)
    if product is not None and publisher.product != product:
        raise PolicyError(
            f"signed by the publisher of product {publisher.product}, not of {product}",
            hint="the signature itself is good; it is for another product",
        )
    return publisher


def verify_sudi(certificate_pem: bytes, *, ca_pem: bytes, at: datetime | None) -> DeviceIdentity:
    """Return the machine that a device certificate (SUDI) of this very CA names.

    Raises: SignatureError.
    """
    certificate = parse_certificate(certificate_pem, what="the device certificate")
    ca = parse_certificate(ca_pem, what="the SUDI CA")
    _check_chain(certificate, ca, at=at, usage=ExtendedKeyUsageOID.CLIENT_AUTH)
    serial = _one(certificate, NameOID.COMMON_NAME)
    match = _DEVICE.fullmatch(_one(certificate, NameOID.SERIAL_NUMBER))
    if match is None or match[2] != serial:
        raise SignatureError(f"the device certificate {_shown(certificate)} names no machine")
    der = _der(certificate)
    return DeviceIdentity(UUID(match[1]), serial, der, Digest.of(der))


def parse_certificate(pem: bytes, *, what: str = "the certificate") -> x509.Certificate:
    """Return the one certificate that ``pem`` holds and nothing else but white space around it.

    Raises: SignatureError.
    """
    if len(pem) > MAX_PEM:
        raise SignatureError(f"{what} is larger than {MAX_PEM} bytes")
    match = _PEM.fullmatch(pem)
    if match is None:
        raise SignatureError(f"{what} is not exactly one certificate in PEM")
    try:
        der = base64.b64decode(match[1].translate(None, b"\r\n"), validate=True)
        certificate = x509.load_der_x509_certificate(der)
        # cryptography parses these lazily; a fault in them is a fault of the certificate
        _ = (certificate.extensions, certificate.subject, certificate.issuer)
        _ = certificate.signature_algorithm_oid
    except _UNREADABLE as error:
        raise SignatureError(f"{what} cannot be read: {error}") from error
    if der[: -len(certificate.signature)][-1:] != b"\0":
        # A signature is whole bytes; a last bit declared unused would be another encoding of it.
        raise SignatureError(f"{what} cannot be read: its signature is not made of whole bytes")
    return certificate


def _check_chain(
    certificate: x509.Certificate,
    ca: x509.Certificate,
    *,
    at: datetime | None,
    usage: x509.ObjectIdentifier,
) -> None:
    for one in (ca, certificate):
        _check_common(one, at)
    _check_issuer(certificate, ca)
    _check_ca(ca)
    _check_leaf(certificate, usage)


def _check_common(certificate: x509.Certificate, at: datetime | None) -> None:
    shown = _shown(certificate)
    for extension in certificate.extensions:
        if extension.critical and extension.oid not in _UNDERSTOOD:
            raise SignatureError(
                f"{shown}: the critical extension {extension.oid.dotted_string} is not understood"
            )
    if certificate.signature_algorithm_oid not in _ALGORITHMS:
        raise SignatureError(f"{shown}: its signature is not RSA PKCS#1 v1.5 with SHA-2")
    rsa_key(certificate)
    if at is None:
        return
    if at < certificate.not_valid_before_utc:
        raise SignatureError(f"{shown}: not valid before {certificate.not_valid_before_utc}")
    if at > certificate.not_valid_after_utc:
        raise SignatureError(f"{shown}: expired at {certificate.not_valid_after_utc}")


def _check_issuer(certificate: x509.Certificate, ca: x509.Certificate) -> None:
    try:
        # checks the issuer's name, the two copies of the algorithm, and the signature
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise SignatureError(f"{_shown(certificate)}: not issued by {_shown(ca)}") from error
    ours = _extension(certificate, x509.AuthorityKeyIdentifier)
    theirs = _extension(ca, x509.SubjectKeyIdentifier)
    if ours is None or theirs is None or ours.key_identifier is None:
        return
    if ours.key_identifier != theirs.digest:
        raise SignatureError(f"{_shown(certificate)}: names another key than that of {_shown(ca)}")


def _check_ca(ca: x509.Certificate) -> None:
    constraints = _extension(ca, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        raise SignatureError(f"{_shown(ca)}: is not a CA")
    # Every path length allows the one certificate below; a CA of the predecessor has no key usage.
    usage = _extension(ca, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        raise SignatureError(f"{_shown(ca)}: may not issue certificates")


def _check_leaf(certificate: x509.Certificate, needed: x509.ObjectIdentifier) -> None:
    shown = _shown(certificate)
    constraints = _extension(certificate, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        raise SignatureError(f"{shown}: is a CA, which may not sign for itself")
    usage = _extension(certificate, x509.KeyUsage)
    if usage is None or not usage.digital_signature or usage.key_cert_sign:
        raise SignatureError(f"{shown}: its key usage is not that of a signer")
    extended = _extension(certificate, x509.ExtendedKeyUsage)
    if extended is None or needed not in extended:
        raise SignatureError(f"{shown}: its extended key usage does not allow {needed._name}")


def check_signature(certificate: x509.Certificate, data: bytes, signature: bytes) -> None:
    """Raise SignatureError unless ``signature`` is a raw RSA PKCS#1 v1.5 SHA-256 one by the key of
    ``certificate``. Every signature that we check ourselves is checked here."""
    key = rsa_key(certificate)
    if len(signature) != key.key_size // 8:
        raise SignatureError(
            f"the signature has {len(signature)} bytes, one by {_shown(certificate)} has "
            f"{key.key_size // 8}"
        )
    try:
        key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature as error:
        raise SignatureError(
            f"the signature is not one by {_shown(certificate)} over these bytes"
        ) from error


def _publisher(certificate: x509.Certificate) -> Publisher:
    common_name = _one(certificate, NameOID.COMMON_NAME)
    match = _PUBLISHER.fullmatch(common_name)
    if match is None:
        raise SignatureError(f"{_shown(certificate)}: names no product")
    der = _der(certificate)
    return Publisher(UUID(match[1]), common_name, der, Digest.of(der))


def rsa_key(certificate: x509.Certificate) -> rsa.RSAPublicKey:
    """Return the key of a certificate, if it is one that we take. Raises: SignatureError."""
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SignatureError(f"{_shown(certificate)}: its key cannot be read") from error
    if not isinstance(key, rsa.RSAPublicKey) or not _MIN_BITS <= key.key_size <= _MAX_BITS:
        raise SignatureError(
            f"{_shown(certificate)}: its key is not RSA of {_MIN_BITS} to {_MAX_BITS} bits"
        )
    return key


def _extension(certificate: x509.Certificate, kind: type[_E]) -> _E | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _one(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> str:
    match [part.value for part in certificate.subject.get_attributes_for_oid(oid)]:
        case [str(text)]:
            return text
        case _:
            message = f"{_shown(certificate)}: must have one {oid._name} in its subject"
            raise SignatureError(message)


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def _shown(certificate: x509.Certificate) -> str:
    return f"certificate {certificate.subject.rfc4514_string()[:120]!r}"
