"""Whether a CA is that of one machine: its device identity signed the certificate at the start.

The certificate is self-signed, so it is the root of what the machine's services show; the signature
(PKCS#7, the one encoding of ``pkcs7``, over the DER) leads from it to the device identity, without
that key being there any more. Pure. Invariant: there is one sequence of bytes that is the signature
of a certificate, and a certificate that may issue for longer, or deeper, than meant is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, SignatureAlgorithmOID

from machineos.core.digest import Digest
from machineos.errors import PolicyError, SignatureError
from machineos.trust.verify.chain import MAX_PEM, check_signature, parse_certificate, rsa_key
from machineos.trust.verify.pkcs7 import detached

if TYPE_CHECKING:
    from machineos.trust.verify.chain import DeviceIdentity

_WHAT = "the host's CA"
_UNIT = "machineOS host CA"


class HostCa(msgspec.Struct, frozen=True):
    """The CA of one machine."""

    certificate_der: bytes
    fingerprint: Digest


def host_ca_name(identity: DeviceIdentity) -> x509.Name:
    """Return the name of the CA of a machine: as the device certificate names it, and what it is.

    The common name is the serial number; product and serial are in ``serialNumber``, since a common
    name has 64 characters at most.
    """
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, _UNIT),
            x509.NameAttribute(NameOID.COMMON_NAME, identity.serial),
            x509.NameAttribute(
                NameOID.SERIAL_NUMBER, f"PID:{identity.product} SN:{identity.serial}"
            ),
        ]
    )


def host_ca_extensions(key: ec.EllipticCurvePublicKey) -> dict[x509.ExtensionType, bool]:
    """Return the extensions of such a certificate, each with whether it is critical."""
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return {
        x509.BasicConstraints(ca=True, path_length=0): True,
        usage: True,
        x509.SubjectKeyIdentifier.from_public_key(key): False,
    }


def verify_host_ca(certificate_pem: bytes, signature: bytes, identity: DeviceIdentity) -> HostCa:
    """Return the CA if ``signature`` (DER) says that it is that of this very machine.

    When it is valid is for whoever uses it to look at; it ends with the device identity.
    Raises: SignatureError (what it is, or who signed it), PolicyError (another machine's).
    """
    certificate = parse_certificate(certificate_pem, what=_WHAT)
    device = x509.load_der_x509_certificate(identity.certificate_der)
    der = certificate.public_bytes(Encoding.DER)
    _check_signed(device, der, signature)
    key = _key(certificate)
    _check_issued(certificate)
    if certificate.subject != host_ca_name(identity):
        raise PolicyError(f"{_WHAT} has the name of another machine than {identity.serial!r}")
    found = {one.value: one.critical for one in certificate.extensions}
    if found != host_ca_extensions(key):
        raise SignatureError(f"{_WHAT} may be used for something else than issuing")
    if certificate.not_valid_after_utc > device.not_valid_after_utc:
        raise SignatureError(f"{_WHAT} would outlive the device identity")
    return HostCa(der, Digest.of(der))


def _check_signed(device: x509.Certificate, der: bytes, signature: bytes) -> None:
    if len(signature) > MAX_PEM:
        raise SignatureError(f"the signature of {_WHAT} is larger than {MAX_PEM} bytes")
    raw = signature[-(rsa_key(device).key_size // 8) :]
    try:
        check_signature(device, der, raw)
    except SignatureError as error:
        raise SignatureError(f"{_WHAT} was not signed by this device identity") from error
    if signature != detached(device, raw):
        raise SignatureError(f"the signature of {_WHAT} is not in its one encoding")


def _key(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SignatureError(f"{_WHAT} has a key that cannot be read") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise SignatureError(f"{_WHAT} has a key that is not of P-256")
    return key


def _check_issued(certificate: x509.Certificate) -> None:
    """Raise SignatureError unless it is self-signed, with SHA-256."""
    if certificate.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA256:
        raise SignatureError(f"{_WHAT} is not signed with ECDSA and SHA-256")
    try:
        certificate.verify_directly_issued_by(certificate)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise SignatureError(f"{_WHAT} is not issued by itself") from error
