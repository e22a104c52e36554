"""The one encoding of a root hash signature: PKCS#7 SignedData (RFC 2315) in DER, detached, without
attributes and certificates, as dm-verity wants it and ``signer`` makes it.

Invariant: a certificate and a raw signature have exactly one encoding. So a signature that somebody
wrapped in anything else can be told from the publisher's own, and cannot stand in its way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509

_SEQUENCE, _SET, _INTEGER, _OCTETS, _CONTEXT_0 = 0x30, 0x31, 0x02, 0x04, 0xA0
_SIGNED_DATA = bytes.fromhex("06092a864886f70d010702")
_DATA = bytes.fromhex("06092a864886f70d010701")
_SHA256 = bytes.fromhex("300d06096086480165030402010500")
_RSA = bytes.fromhex("300d06092a864886f70d0101010500")
_ONE = bytes.fromhex("020101")


def detached(certificate: x509.Certificate, signature: bytes) -> bytes:
    """Return the PKCS#7 of an RSA PKCS#1 v1.5 SHA-256 ``signature`` by the certificate's key."""
    serial = certificate.serial_number
    number = _der(_INTEGER, serial.to_bytes(serial.bit_length() // 8 + 1, "big"))
    signer = _der(
        _SEQUENCE,
        _ONE,
        _der(_SEQUENCE, certificate.issuer.public_bytes(), number),
        _SHA256,
        _RSA,
        _der(_OCTETS, signature),
    )
    signed = _der(_SEQUENCE, _ONE, _der(_SET, _SHA256), _der(_SEQUENCE, _DATA), _der(_SET, signer))
    return _der(_SEQUENCE, _SIGNED_DATA, _der(_CONTEXT_0, signed))


def _der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content
