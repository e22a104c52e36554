"""A generator of good and bad certificates: every fault that a verifier must notice, one by one.

It builds certificates with the library directly and not with ``machineos.trust.keys.x509``, so that
a defect there cannot hide itself here.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypedDict, Unpack
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from changed import replace

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
PRODUCT = UUID("11111111-2222-4333-8444-555555555555")
OTHER_PRODUCT = UUID("99999999-2222-4333-8444-555555555555")
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
Hash = hashes.SHA256 | hashes.SHA512
UNKNOWN_EXTENSION = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"x")


KEYS = "MACHINEOS_TEST_KEYS"


def _make(path: Path, bits: int) -> None:
    """Make a key, once: one process makes it, the others wait for it."""
    with path.with_name(f"{bits}.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return
        whole = path.with_suffix(".part")
        # Of an odd size, the primes of two keys may make one of another size.
        made = _fresh(bits) if bits % 2 else _next(path.with_name(f"{bits}.primes"), bits)
        whole.write_bytes(
            made.private_bytes(
                serialization.Encoding.DER,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        whole.rename(path)


def _next(pool: Path, bits: int) -> rsa.RSAPrivateKey:
    """Return another key. Each two primes of the ``pool`` make one, which only a key for tests may
    be: to find a prime is what takes long. The pool's file counts the keys, then names its primes.
    """
    taken, *primes = [int(word, 16) for word in pool.read_text().split()] if pool.exists() else [0]
    pairs = [(first, second) for at, second in enumerate(primes) for first in primes[:at]]
    if taken == len(pairs):
        numbers = _fresh(bits).private_numbers()
        pairs += [(first, numbers.p) for first in primes]
        pairs += [(first, numbers.q) for first in (*primes, numbers.p)]
        primes += (numbers.p, numbers.q)
    pool.write_text(" ".join(f"{number:x}" for number in (taken + 1, *primes)))
    p, q = pairs[taken]
    secret = rsa.rsa_recover_private_exponent(65537, p, q)
    crt = (rsa.rsa_crt_dmp1(secret, p), rsa.rsa_crt_dmq1(secret, q), rsa.rsa_crt_iqmp(p, q))
    made = rsa.RSAPrivateNumbers(p, q, secret, *crt, rsa.RSAPublicNumbers(65537, p * q))
    return made.private_key(unsafe_skip_rsa_key_validation=True)


def _fresh(bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@functools.cache
def key(label: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """The RSA key of this name; one per name and folder, because making them is slow.

    The folder is the one that the environment names (tests/conftest); without, it is made anew.
    """
    if KEYS not in os.environ:
        return _fresh(bits)
    path = Path(os.environ[KEYS]) / f"{hashlib.sha256(label.encode()).hexdigest()}-{bits}"
    if not path.exists():
        _make(path, bits)
    data = path.read_bytes()
    loaded = serialization.load_der_private_key(data, None, unsafe_skip_rsa_key_validation=True)
    assert isinstance(loaded, rsa.RSAPrivateKey)
    return loaded


@functools.cache
def ec_key() -> ec.EllipticCurvePrivateKey:
    """A key that is not RSA."""
    return ec.generate_private_key(ec.SECP256R1())


def usage(**given: bool) -> x509.KeyUsage:
    """A key usage with the given bits."""
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
        "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: given.get(name, False) for name in names})


class Changes(TypedDict, total=False):
    """The fields of a ``Recipe``."""

    common_names: tuple[str, ...]
    key: Key
    issuer_name: str | None
    issuer_key: Key | None
    serial_number: str
    start: datetime
    end: datetime
    constraints: x509.BasicConstraints | None
    usage: x509.KeyUsage | None
    extended: tuple[x509.ObjectIdentifier, ...]
    authority: bytes | None
    subject_key: bytes | None
    extra: tuple[tuple[x509.ExtensionType, bool], ...]
    algorithm: Hash
    pss: bool


@dataclass(frozen=True)
class Recipe:
    """A certificate to be; ``but`` makes the bad ones out of the good."""

    common_names: tuple[str, ...]
    key: Key
    issuer_name: str | None = None
    issuer_key: Key | None = None
    serial_number: str = ""
    start: datetime = NOW - timedelta(days=30)
    end: datetime = NOW + timedelta(days=300)
    constraints: x509.BasicConstraints | None = None
    usage: x509.KeyUsage | None = None
    extended: tuple[x509.ObjectIdentifier, ...] = ()
    authority: bytes | None = None
    subject_key: bytes | None = None
    extra: tuple[tuple[x509.ExtensionType, bool], ...] = ()
    algorithm: Hash = field(default_factory=hashes.SHA256)
    pss: bool = False

    def build(self) -> x509.Certificate:
        """The certificate."""
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.issuer_name or "none")])
        builder = (
            x509.CertificateBuilder()
            .subject_name(self._subject())
            .issuer_name(issuer if self.issuer_name else self._subject())
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.start)
            .not_valid_after(self.end)
        )
        for extension, critical in self._extensions():
            builder = builder.add_extension(extension, critical=critical)
        scheme = padding.PSS(padding.MGF1(hashes.SHA256()), 32) if self.pss else None
        return builder.sign(self.issuer_key or self.key, self.algorithm, rsa_padding=scheme)

    def pem(self) -> bytes:
        """The certificate as PEM."""
        return self.build().public_bytes(serialization.Encoding.PEM)

    def but(self, **changes: Unpack[Changes]) -> Recipe:
        """The same with changes."""
        return replace(self, **changes)

    def _subject(self) -> x509.Name:
        parts = [x509.NameAttribute(NameOID.COMMON_NAME, text) for text in self.common_names]
        if self.serial_number:
            parts.append(x509.NameAttribute(NameOID.SERIAL_NUMBER, self.serial_number))
        return x509.Name(parts)

    def _extensions(self) -> list[tuple[x509.ExtensionType, bool]]:
        found: list[tuple[x509.ExtensionType, bool]] = list(self.extra)
        if self.constraints is not None:
            found.append((self.constraints, True))
        if self.usage is not None:
            found.append((self.usage, True))
        if self.extended:
            found.append((x509.ExtendedKeyUsage(self.extended), False))
        if self.authority is not None:
            found.append((x509.AuthorityKeyIdentifier(self.authority, None, None), False))
        if self.subject_key is not None:
            found.append((x509.SubjectKeyIdentifier(self.subject_key), False))
        return found


CA_NAME = "Manifest rootCA"
SUDI_CA_NAME = "SUDI rootCA"


def ca(name: str = CA_NAME, label: str = "ca") -> Recipe:
    """A good CA."""
    return Recipe(
        common_names=(name,),
        key=key(label),
        constraints=x509.BasicConstraints(ca=True, path_length=0),
        usage=usage(key_cert_sign=True, crl_sign=True),
        subject_key=b"ca-identifier",
    )


def publisher(product: UUID = PRODUCT) -> Recipe:
    """A good publisher's certificate under ``ca()``."""
    return Recipe(
        common_names=(f"manifest PRODUCT:{product}",),
        key=key("publisher"),
        issuer_name=CA_NAME,
        issuer_key=key("ca"),
        constraints=x509.BasicConstraints(ca=False, path_length=None),
        usage=usage(digital_signature=True),
        extended=(ExtendedKeyUsageOID.CODE_SIGNING,),
        authority=b"ca-identifier",
    )


def device(serial: str = "SN0001") -> Recipe:
    """A good device certificate under ``ca(SUDI_CA_NAME, "sudi-ca")``."""
    return Recipe(
        common_names=(serial,),
        serial_number=f"PID:{PRODUCT} SN:{serial}",
        key=key("device"),
        issuer_name=SUDI_CA_NAME,
        issuer_key=key("sudi-ca"),
        constraints=x509.BasicConstraints(ca=False, path_length=None),
        usage=usage(digital_signature=True, key_encipherment=True),
        extended=(ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
    )


def sign(data: bytes, label: str = "publisher") -> bytes:
    """A good raw signature."""
    return key(label).sign(data, padding.PKCS1v15(), hashes.SHA256())


def bad_publishers() -> dict[str, Recipe]:
    """One certificate per fault, each signed validly by its holder, each to be refused."""
    good = publisher()
    intermediate = "Intermediate CA"
    return {
        "expired": good.but(end=NOW - timedelta(seconds=1)),
        "not yet valid": good.but(start=NOW + timedelta(seconds=1)),
        "other CA, same name": good.but(issuer_key=key("impostor")),
        "other CA, other name": good.but(issuer_key=key("impostor"), issuer_name="Impostor"),
        "right key, other issuer name": good.but(issuer_name="Manifest rootCa"),
        "self-signed": good.but(issuer_name=None, issuer_key=None),
        "signed by another publisher": good.but(
            issuer_name=good.common_names[0], issuer_key=key("publisher"), key=key("third")
        ),
        "under an intermediate CA": good.but(issuer_name=intermediate, issuer_key=key("middle")),
        "authority identifier of another key": good.but(authority=b"another"),
        "a CA": good.but(constraints=x509.BasicConstraints(ca=True, path_length=0)),
        "no key usage": good.but(usage=None),
        "no digital signature": good.but(usage=usage(key_encipherment=True)),
        "may sign certificates": good.but(usage=usage(digital_signature=True, key_cert_sign=True)),
        "no extended usage": good.but(extended=()),
        "for TLS": good.but(extended=(ExtendedKeyUsageOID.SERVER_AUTH,)),
        "for anything": good.but(extended=(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)),
        "unknown critical extension": good.but(extra=((UNKNOWN_EXTENSION, True),)),
        "critical name constraints": good.but(
            extra=((x509.NameConstraints([x509.DNSName("a")], None), True),)
        ),
        "PSS in the certificate": good.but(pss=True),
        "key of 1024 bits": good.but(key=key("publisher-1024", 1024)),
        "key not RSA": good.but(key=ec_key()),
        "two common names": good.but(common_names=(good.common_names[0], good.common_names[0])),
        "no common name": good.but(common_names=(), serial_number="x"),
        "no product": good.but(common_names=("manifest PRODUCT:",)),
        "product with a tail": good.but(common_names=(good.common_names[0] + "0",)),
        "product with a head": good.but(common_names=("x " + good.common_names[0],)),
        "product without dashes": good.but(common_names=(f"manifest PRODUCT:{PRODUCT.hex}",)),
    }


def bad_cas() -> dict[str, Recipe]:
    """CAs with the name and key of the good one, each to be refused."""
    good = ca()
    return {
        "expired": good.but(end=NOW - timedelta(seconds=1)),
        "not yet valid": good.but(start=NOW + timedelta(seconds=1)),
        "no basic constraints": good.but(constraints=None),
        "not a CA": good.but(constraints=x509.BasicConstraints(ca=False, path_length=None)),
        "may not sign certificates": good.but(usage=usage(digital_signature=True)),
        "unknown critical extension": good.but(extra=((UNKNOWN_EXTENSION, True),)),
        "same name, other key": good.but(key=key("impostor")),
        "key not RSA": good.but(key=ec_key()),
        "PSS": good.but(pss=True),
    }
