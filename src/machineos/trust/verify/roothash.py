"""Whether a publisher signed the root hash of a layer, in the one encoding that the kernel takes.

Pure. Invariant: there is exactly one sequence of bytes for which the answer is yes
(``pkcs7.detached``, RSA PKCS#1 v1.5 being deterministic), so nobody else's can stand in its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509

from machineos.errors import SignatureError
from machineos.trust.verify.chain import check_signature, rsa_key
from machineos.trust.verify.pkcs7 import detached

if TYPE_CHECKING:
    from machineos.core.word import RootHash
    from machineos.trust.verify.chain import Publisher


def is_signature(candidate: bytes, root_hash: RootHash, publisher: Publisher) -> bool:
    """Whether ``candidate`` is the publisher's PKCS#7 of ``root_hash``, and nothing else.

    The right signature in a wrong wrapping does not count: the kernel would refuse it, and whoever
    may push to the registry could put it before the good one.
    """
    certificate = x509.load_der_x509_certificate(publisher.certificate_der)
    try:
        signature = candidate[-(rsa_key(certificate).key_size // 8) :]
        check_signature(certificate, root_hash.encode(), signature)
    except SignatureError:
        return False
    return candidate == detached(certificate, signature)
