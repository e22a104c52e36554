"""The CA of one machine: made once, at installation, where the key of its identity is at hand.

What ``verify.hostca`` takes, and nothing else, is made here. Its key is new and leaves in a
``Secret``; that cryptography made PEM of it on the way is out of our reach.
Shared with the initrd.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from machineos.core.secret import Secret
from machineos.errors import BootError
from machineos.trust.verify.chain import check_signature
from machineos.trust.verify.hostca import host_ca_extensions, host_ca_name
from machineos.trust.verify.pkcs7 import detached

if TYPE_CHECKING:
    from collections.abc import Callable

    from machineos.trust.verify.chain import DeviceIdentity

_SERIAL_SIZE = 16


def make_host_ca(
    identity: DeviceIdentity, private_key: Secret, *, random: Callable[[int], bytes]
) -> tuple[Secret, bytes, bytes]:
    """Return private key (PEM, PKCS#8), certificate (PEM) and the identity's signature (DER).

    The certificate is valid as long as the device certificate: no clock is asked. ``random`` gives
    its serial number. Raises: BootError (the private key is not that of the identity),
    SignatureError (it is damaged).
    """
    device = x509.load_der_x509_certificate(identity.certificate_der)
    signer = _signer(device, private_key)
    key = ec.generate_private_key(ec.SECP256R1())
    name = host_ca_name(identity)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(int.from_bytes(b"\1" + random(_SERIAL_SIZE), "big"))
        .not_valid_before(device.not_valid_before_utc)
        .not_valid_after(device.not_valid_after_utc)
    )
    for extension, critical in host_ca_extensions(key.public_key()).items():
        builder = builder.add_extension(extension, critical=critical)
    certificate = builder.sign(key, hashes.SHA256())
    der = certificate.public_bytes(Encoding.DER)
    raw = signer.sign(der, padding.PKCS1v15(), hashes.SHA256())
    check_signature(device, der, raw)  # a key that was damaged makes none
    secret = Secret(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return secret, certificate.public_bytes(Encoding.PEM), detached(device, raw)


def _signer(device: x509.Certificate, private_key: Secret) -> rsa.RSAPrivateKey:
    """Return the key of the device identity. Raises: BootError."""
    try:
        # Of the TPM, whose answer is authentic; that its primes are prime was seen to before.
        key = load_pem_private_key(private_key.reveal(), None, unsafe_skip_rsa_key_validation=True)
    except ValueError as error:
        raise BootError("the private key of the device identity cannot be read") from error
    if not isinstance(key, rsa.RSAPrivateKey) or key.public_key() != device.public_key():
        raise BootError("the private key in the TPM is not that of the device identity")
    return key
