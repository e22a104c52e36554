"""Issuing: RSA keys and X.509 v3 certificates (RFC 5280), one profile per role of a keyset.

Invariant: every certificate that leaves ``issue`` carries subject and authority key identifiers,
critical basic constraints and a critical key usage, a random serial, and ends no later than its
issuer; so ``openssl verify -x509_strict`` and the kernel's keyrings take each chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from machineos.errors import SignatureError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from machineos.core.secret import Secret

# A clock that is a time zone off, in firmware or a guest, must not refuse a fresh certificate.
_BACKDATE = timedelta(days=1)
FOREVER = datetime(2099, 12, 31, 23, 0, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Profile:
    """What a certificate may be used for and how long. ``years`` 0 means until ``FOREVER``."""

    years: int
    bits: int = 2048
    path_length: int | None = None
    """None for an end entity, otherwise how many CAs may follow below this one."""
    digital_signature: bool = True
    encipherment: bool = False
    extended: tuple[x509.ObjectIdentifier, ...] = ()

    @property
    def is_ca(self) -> bool:
        """Whether certificates may be issued with the key."""
        return self.path_length is not None


_CODE = (ExtendedKeyUsageOID.CODE_SIGNING,)
_TLS = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)

MANIFEST_CA = Profile(25, bits=3072, path_length=0, digital_signature=False)
SUDI_CA = Profile(0, bits=3072, path_length=0, digital_signature=False)
# Firmware and TPMs are only sure to take RSA 2048, hence no longer keys in these.
UEFI_PK = Profile(50, path_length=0)
UEFI_KEK = Profile(50)
UEFI_DB = Profile(25, extended=_CODE)
UKI = Profile(25, extended=_CODE)
# The production key signs kernel images and, for the kernel's keyrings, vouches for the manifest
# CA: a CA with one more below it. The .machine keyring may insist on CA and keyCertSign.
UKI_PRODUCTION = Profile(25, path_length=1, extended=_CODE)
UKI_CROSS = Profile(25, path_length=0, digital_signature=False)
TPM_POLICY = Profile(25)
PUBLISHER = Profile(20, extended=_CODE)
SUDI = Profile(0, encipherment=True, extended=_TLS)


def new_key(profile: Profile) -> rsa.RSAPrivateKey:
    """Return a fresh RSA key of the profile's size."""
    return rsa.generate_private_key(public_exponent=65537, key_size=profile.bits)


def name(
    common_name: str,
    *,
    unit: str = "",
    organizations: Sequence[str] = (),
    serial: str = "",
) -> x509.Name:
    """Return a subject; parts that are empty are left out.

    Raises: UsageError when a part is longer than X.509 allows or holds control characters.
    """
    parts = [(NameOID.ORGANIZATION_NAME, organization) for organization in organizations]
    parts += [(NameOID.ORGANIZATIONAL_UNIT_NAME, unit), (NameOID.COMMON_NAME, common_name)]
    for _, text in parts:
        if len(text) > 64 or not text.isprintable():
            raise UsageError(
                f"{text[:80]!r} does not fit into a certificate's name (64 characters)"
            )
    # The serial of the predecessor's device certificates is over the RFC's 64; all readers take it.
    parts.append((NameOID.SERIAL_NUMBER, serial))
    return x509.Name([x509.NameAttribute(oid, text) for oid, text in parts if text])


def issue(
    profile: Profile,
    subject: x509.Name,
    public_key: rsa.RSAPublicKey,
    *,
    issuer: x509.Certificate | None,
    issuer_key: rsa.RSAPrivateKey,
    now: datetime,
) -> x509.Certificate:
    """Return a certificate; ``issuer`` None makes it self-signed.

    Raises: SignatureError when ``issuer_key`` is not the key of ``issuer``.
    """
    signer = issuer_key.public_key()
    if (public_key if issuer is None else issuer.public_key()) != signer:
        raise SignatureError("the issuer's private key does not belong to its certificate")
    end = FOREVER if profile.years == 0 else _years_later(now, profile.years)
    if issuer is not None:
        end = min(end, issuer.not_valid_after_utc)
    start = now - _BACKDATE
    if issuer is not None:
        start = max(start, issuer.not_valid_before_utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(profile.is_ca, profile.path_length), critical=True)
        .add_extension(_key_usage(profile), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(_authority(signer, issuer), critical=False)
    )
    if profile.extended:
        builder = builder.add_extension(x509.ExtendedKeyUsage(profile.extended), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def key_pem(key: rsa.RSAPrivateKey, passphrase: Secret | None) -> bytes:
    """Return the key as PKCS#8 PEM, encrypted when there is a passphrase."""
    protection: serialization.KeySerializationEncryption
    if passphrase is None:
        protection = serialization.NoEncryption()
    else:
        protection = serialization.BestAvailableEncryption(passphrase.reveal())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection
    )


def is_protected(pem: bytes) -> bool:
    """Whether the private key in a PEM is encrypted (PKCS#8, or the older form of OpenSSL)."""
    return b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in pem or b"Proc-Type: 4,ENCRYPTED" in pem


def load_key(pem: bytes, passphrase: Secret | None, *, what: str) -> rsa.RSAPrivateKey:
    """Return the RSA key in a PEM. ``what`` names it in messages.

    That its numbers belong together is checked (RFC 8017, section 3.2). That two of them are prime
    is not proved again: whoever made the key did, and it takes a hundred times as long as to sign.

    Raises: UsageError (a passphrase is missing, wrong or given for a plain key), SignatureError
    (not an RSA key of 2048 bits or more, or a damaged one).
    """
    encrypted = is_protected(pem)
    if encrypted and passphrase is None:
        raise UsageError(f"{what} is protected by a passphrase", hint="give --passphrase-file")
    if passphrase is not None and not encrypted:
        raise UsageError(
            f"{what} is not protected by a passphrase", hint="leave out --passphrase-file"
        )
    try:
        key = serialization.load_pem_private_key(
            pem,
            None if passphrase is None else passphrase.reveal(),
            unsafe_skip_rsa_key_validation=True,
        )
    except (ValueError, TypeError) as error:
        if encrypted:
            raise UsageError(f"the passphrase does not open {what}") from error
        raise SignatureError(f"{what} is not a private key in PEM") from error
    if not isinstance(key, rsa.RSAPrivateKey) or key.key_size < 2048:
        raise SignatureError(f"{what} is not an RSA key of 2048 bits or more")
    if not _belong_together(key.private_numbers()):
        raise SignatureError(
            f"{what} is damaged: its numbers do not belong together",
            hint="take it from a backup",
        )
    return key


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """Return the certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def certificate_der(certificate: x509.Certificate) -> bytes:
    """Return the certificate as DER."""
    return certificate.public_bytes(serialization.Encoding.DER)


def _belong_together(key: rsa.RSAPrivateNumbers) -> bool:
    n, e = key.public_numbers.n, key.public_numbers.e
    return (
        min(key.p, key.q) > 1
        and key.p * key.q == n
        and e * key.d % (key.p - 1) == 1
        and e * key.d % (key.q - 1) == 1
        and e * key.dmp1 % (key.p - 1) == 1
        and e * key.dmq1 % (key.q - 1) == 1
        and key.iqmp * key.q % key.p == 1
    )


def _years_later(now: datetime, years: int) -> datetime:
    try:
        return now.replace(year=now.year + years)
    except ValueError:  # 29 February
        return now.replace(year=now.year + years, day=28)


def _authority(
    signer: rsa.RSAPublicKey, issuer: x509.Certificate | None
) -> x509.AuthorityKeyIdentifier:
    # The kernel finds the issuer by this identifier, so it is copied from the issuer, whose own
    # may have been computed in another way.
    if issuer is not None:
        try:
            ski = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        except x509.ExtensionNotFound:
            pass
        else:
            return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ski.value)
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(signer)


def _key_usage(profile: Profile) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=profile.digital_signature,
        content_commitment=False,
        key_encipherment=profile.encipherment,
        data_encipherment=profile.encipherment,
        key_agreement=False,
        key_cert_sign=profile.is_ca,
        crl_sign=profile.is_ca,
        encipher_only=False,
        decipher_only=False,
    )
