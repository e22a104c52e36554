"""Certificates in files that the user names, as other programs write them.

``openssl x509 -text``, ``openssl ca`` and ``openssl pkcs12`` put words for people in front of a
certificate (RFC 7468, section 2). Here they are taken off; whatever is signed or published has
none, and ``trust.verify`` takes none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.core.files import read_named
from machineos.trust.verify.chain import MAX_PEM

if TYPE_CHECKING:
    from pathlib import Path

_ANY = b"-----BEGIN "
_MARK = b"-----BEGIN CERTIFICATE-----"


def read_certificate(path: Path) -> bytes:
    """Return the certificate in PEM that is in a file, without the text in front of it; that it is
    one, and only one, is for ``parse_certificate`` to say. Raises: MissingError, DocumentError."""
    return without_text(read_named(path, MAX_PEM))


def without_text(pem: bytes) -> bytes:
    """Return ``pem`` from its first certificate on, if nothing but text is before it."""
    front, mark, rest = pem.partition(_MARK)
    is_text = front.endswith(b"\n") and _ANY not in front
    return mark + rest if mark and is_text else pem
