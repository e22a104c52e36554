"""What a keyset, a project and a machine's identity consist of: every file, before one is written.

    <keyset>/<role>/{cert.pem,privkey.pem[,guid]}        one folder for each of ``ROLES``
    <keyset>/manifest-ca/uki-cross.pem                   ours: the manifest CA's key and name,
                                                         vouched for by uki-production
    <keyset>/manifest/<project>/{uuid,cert.pem,privkey.pem}
    <keyset>/manifest/<project>/sudi/<serial>/{cert.pem,privkey.pem}

Pure: nothing here touches a disk, time and randomness are arguments; ``keyset`` reads and writes.
One passphrase, if any, protects every private key of a keyset.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from machineos.errors import DocumentError, Fault, SignatureError, UsageError
from machineos.trust.keys import x509 as issuing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.x509 import Certificate, Name

    from machineos.core.secret import Secret

CERTIFICATE = "cert.pem"
PRIVATE_KEY = "privkey.pem"
GUID = "guid"
UUID_FILE = "uuid"
CROSS = "uki-cross.pem"
PROJECTS = "manifest"
SUDIS = "sudi"
DEFAULT_PROJECT = "default"

# role, common name, profile, role of the issuer (None: self-signed); issuers come first
_PLAN: tuple[tuple[str, str, issuing.Profile, str | None], ...] = (
    ("manifest-ca", "Manifest rootCA", issuing.MANIFEST_CA, None),
    ("sudi-ca", "SUDI rootCA", issuing.SUDI_CA, None),
    ("uefi-pk", "UEFI PK", issuing.UEFI_PK, None),
    ("uefi-kek", "UEFI KEK", issuing.UEFI_KEK, "uefi-pk"),
    ("uefi-db", "UEFI DB", issuing.UEFI_DB, None),
    ("uki-production", "UKI Production", issuing.UKI_PRODUCTION, None),
    ("uki-limited", "UKI Limited", issuing.UKI, None),
    ("uki-tpm", "UKI TPM", issuing.UKI, None),
    ("tpmpol-admin", "TPM EAPolicy Admin", issuing.TPM_POLICY, None),
    ("tpmpol-luks", "TPM EAPolicy LUKS", issuing.TPM_POLICY, None),
)
ROLES = tuple(role for role, _, _, _ in _PLAN)
ROLES_WITH_GUID = ("uefi-pk", "uefi-kek", "uefi-db", "uki-production", "uki-limited", "uki-tpm")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# A keyset's name goes into "Project Machine Project <keyset>", which X.509 limits to 64 characters.
_LONGEST = {"keyset": 40, "project": 64, "serial": 64}


class Randomness(Protocol):
    """Where new keys and identifiers come from."""

    def key(self, profile: issuing.Profile) -> RSAPrivateKey:
        """Return a fresh key of the profile's size."""
        ...

    def uuid(self) -> UUID:
        """Return a fresh UUID."""
        ...


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder to be made, for its owner only; ``path`` is relative."""

    path: str


@dataclass(frozen=True, slots=True)
class File:
    """A file to be written. A private key is for its owner only, before its first byte is there."""

    path: str
    data: bytes = field(repr=False)
    mode: int = 0o640


Entry = Folder | File


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate that was issued, and its private key, in memory."""

    certificate: Certificate
    key: RSAPrivateKey = field(repr=False)


def is_name(text: str) -> bool:
    """Whether ``text`` is spelled like the name of a keyset, a project or a serial."""
    return _NAME.fullmatch(text) is not None


def check_name(name: str, kind: str) -> str:
    """Return ``name`` when it may name a keyset, project or serial (``kind``).

    Raises: UsageError.
    """
    if len(name) > _LONGEST[kind] or not is_name(name):
        raise UsageError(
            f"{name[:80]!r} cannot be the name of a {kind}",
            hint=f"letters, digits, '.', '_' and '-', first a letter or digit, "
            f"at most {_LONGEST[kind]}",
        )
    return name


def parse_uuid(data: bytes, *, name: str) -> UUID:
    """Return the UUID in the file ``name``. Raises: DocumentError."""
    try:
        return UUID(data.decode("ascii").strip())
    except ValueError as error:
        raise DocumentError(name, [Fault("", 0, "is not a UUID")]) from error


def split_project(text: str) -> tuple[str, str]:
    """Return the names in ``keyset:project``; ``keyset`` alone means its default project."""
    keyset, _, project = text.partition(":")
    return keyset, project or DEFAULT_PROJECT


def keyset_entries(
    name: str,
    *,
    organizations: Sequence[str],
    passphrase: Secret | None,
    now: datetime,
    random: Randomness,
    tell: Callable[[str], None],
) -> Iterator[Entry]:
    """Yield a keyset with all its keys and the project ``default``, each folder before its files.

    ``tell`` is told each key's name before it is made.
    Raises: UsageError when a part of a certificate's name does not fit.
    """
    unit = f"Project Machine Project {name}"
    made: dict[str, Issued] = {}
    for role, common_name, profile, issuer in _PLAN:
        tell(role)
        subject = issuing.name(common_name, unit=unit, organizations=organizations)
        made[role] = _issue(profile, subject, made[issuer] if issuer else None, now, random)
        yield Folder(role)
        yield from _pair(f"{role}/", made[role], passphrase)
        if role in ROLES_WITH_GUID:
            yield _text(f"{role}/{GUID}", str(random.uuid()))
    ca = made["manifest-ca"]
    yield cross_entry(ca.certificate, made["uki-production"], now)
    tell(f"manifest:{DEFAULT_PROJECT}")
    yield Folder(PROJECTS)
    default = f"{PROJECTS}/{DEFAULT_PROJECT}"
    yield Folder(default)
    yield from _project(f"{default}/", random.uuid(), ca, passphrase, now, random)


def cross_entry(ca: Certificate, uki: Issued, now: datetime) -> File:
    """Return the certificate of the manifest CA's key and name that ``uki`` issues.

    Raises: SignatureError when key and certificate of ``uki`` do not belong together, or the CA has
    no RSA key.
    """
    key = ca.public_key()
    if not isinstance(key, RSAPublicKey):
        raise SignatureError("the manifest CA has no RSA key")
    cross = issuing.issue(
        issuing.UKI_CROSS, ca.subject, key, issuer=uki.certificate, issuer_key=uki.key, now=now
    )
    return File(f"manifest-ca/{CROSS}", issuing.certificate_pem(cross))


def project_entries(
    product: UUID, ca: Issued, *, passphrase: Secret | None, now: datetime, random: Randomness
) -> Iterator[Entry]:
    """Yield what is in a project's folder: the publisher of ``product``, vouched for by ``ca``.

    Raises: SignatureError when key and certificate of the CA do not belong together.
    """
    return _project("", product, ca, passphrase, now, random)


def sudi_entries(
    product: UUID,
    serial: str,
    ca: Issued,
    *,
    passphrase: Secret | None,
    now: datetime,
    random: Randomness,
) -> Iterator[Entry]:
    """Yield what is in the folder of a machine's identity, vouched for by ``ca``.

    Raises: SignatureError when key and certificate of the CA do not belong together.
    """
    subject = issuing.name(serial, serial=f"PID:{product} SN:{serial}")
    return _pair("", _issue(issuing.SUDI, subject, ca, now, random), passphrase)


def _project(
    place: str,
    product: UUID,
    ca: Issued,
    passphrase: Secret | None,
    now: datetime,
    random: Randomness,
) -> Iterator[Entry]:
    subject = issuing.name(f"manifest PRODUCT:{product}")
    yield from _pair(place, _issue(issuing.PUBLISHER, subject, ca, now, random), passphrase)
    yield _text(f"{place}{UUID_FILE}", str(product))
    yield Folder(f"{place}{SUDIS}")


def _issue(
    profile: issuing.Profile,
    subject: Name,
    issuer: Issued | None,
    now: datetime,
    random: Randomness,
) -> Issued:
    key = random.key(profile)
    certificate = issuing.issue(
        profile,
        subject,
        key.public_key(),
        issuer=issuer.certificate if issuer else None,
        issuer_key=issuer.key if issuer else key,
        now=now,
    )
    return Issued(certificate, key)


def _pair(place: str, made: Issued, passphrase: Secret | None) -> Iterator[File]:
    yield File(f"{place}{PRIVATE_KEY}", issuing.key_pem(made.key, passphrase), mode=0o600)
    yield File(f"{place}{CERTIFICATE}", issuing.certificate_pem(made.certificate))


def _text(path: str, text: str) -> File:
    return File(path, text.encode("ascii"))
