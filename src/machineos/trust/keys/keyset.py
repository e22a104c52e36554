"""Keysets: all keys of one maker of products, in folders with the predecessor's names.

    <keyset>/<role>/{cert.pem,privkey.pem[,guid]}        one folder for each of ``ROLES``
    <keyset>/manifest-ca/uki-cross.pem                   ours: the manifest CA's key and name,
                                                         vouched for by uki-production
    <keyset>/manifest/<project>/{uuid,cert.pem,privkey.pem}
    <keyset>/manifest/<project>/sudi/<serial>/{cert.pem,privkey.pem}

Invariant: a keyset, project or device identity is there whole or not at all (built in a hidden
sibling folder, then renamed), and a private key is 0600 before its first byte is written.
One passphrase, if any, protects every private key of a keyset.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from machineos.core.files import appearing, read_bounded, write_atomic
from machineos.errors import ConflictError, DocumentError, Fault, MissingError, UsageError
from machineos.trust.keys import x509 as issuing
from machineos.trust.verify.chain import MAX_PEM, parse_certificate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.x509 import Certificate, Name

    from machineos.core.clock import Clock
    from machineos.core.secret import Secret

CERTIFICATE = "cert.pem"
PRIVATE_KEY = "privkey.pem"
GUID = "guid"
UUID_FILE = "uuid"
CROSS = "uki-cross.pem"
PROJECTS = "manifest"
SUDIS = "sudi"
DEFAULT_PROJECT = "default"

ROLES = (
    "manifest-ca",
    "sudi-ca",
    "uefi-pk",
    "uefi-kek",
    "uefi-db",
    "uki-production",
    "uki-limited",
    "uki-tpm",
    "tpmpol-admin",
    "tpmpol-luks",
)
ROLES_WITH_GUID = ("uefi-pk", "uefi-kek", "uefi-db", "uki-production", "uki-limited", "uki-tpm")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# A keyset's name goes into "Project Machine Project <keyset>", which X.509 limits to 64 characters.
_LONGEST = {"keyset": 40, "project": 64, "serial": 64}


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Where a certificate and its private key are; ``guid`` is the owner GUID of UEFI keys."""

    cert_path: Path
    key_path: Path
    guid: UUID | None = None

    def certificate_pem(self) -> bytes:
        """Return the certificate's PEM. Raises: MissingError, DocumentError."""
        return read_bounded(self.cert_path, MAX_PEM)

    def certificate(self) -> Certificate:
        """Return the certificate. Raises: MissingError, DocumentError, SignatureError."""
        return parse_certificate(self.certificate_pem(), what=str(self.cert_path))

    def certificate_der(self) -> bytes:
        """Return the certificate as DER. Raises: MissingError, DocumentError, SignatureError."""
        return issuing.certificate_der(self.certificate())

    def is_protected(self) -> bool:
        """Whether a passphrase protects the private key. Raises: MissingError, DocumentError."""
        return issuing.is_protected(read_bounded(self.key_path, MAX_PEM))


@dataclass(frozen=True, slots=True)
class Sudi:
    """The identity of one machine."""

    serial: str
    pair: KeyPair


@dataclass(frozen=True, slots=True)
class Project:
    """One product: its UUID, the key pair of its publisher, and its machines."""

    name: str
    uuid: UUID
    pair: KeyPair
    root: Path

    @property
    def keyset(self) -> Keyset:
        """The keyset that the project belongs to."""
        root = self.root.parent.parent
        return Keyset(root.name, root)

    @property
    def sudi_root(self) -> Path:
        """The folder of the product's device identities."""
        return self.root / SUDIS

    def list_sudis(self) -> list[Sudi]:
        """Return the product's device identities by serial."""
        return [Sudi(folder.name, key_pair(folder)) for folder in _folders(self.sudi_root)]

    def sudi(self, serial: str) -> Sudi:
        """Return one device identity. Raises: MissingError, UsageError (not a serial)."""
        folder = self.sudi_root / check_name(serial, "serial")
        if not (folder / CERTIFICATE).is_file():
            raise MissingError(
                f"project {self.name} has no machine {serial}", hint="list them: trust sudi list"
            )
        return Sudi(serial, key_pair(folder))


@dataclass(frozen=True, slots=True)
class Keyset:
    """A keyset that is there; nothing is read before it is asked for."""

    name: str
    root: Path

    @classmethod
    def open(cls, keysets_root: Path, name: str) -> Keyset:
        """Return the keyset ``name``. Raises: MissingError, UsageError (not a keyset's name)."""
        root = keysets_root / check_name(name, "keyset")
        if not (root / "manifest-ca" / CERTIFICATE).is_file():
            raise MissingError(
                f"there is no keyset {name} in {keysets_root}",
                hint=f"make it: trust keyset add {name}",
            )
        return cls(name, root)

    @property
    def artifacts(self) -> Path:
        """The folder of what is built from the keyset (provision and install media)."""
        return self.root / "artifacts"

    @property
    def bootkit(self) -> Path:
        """The folder of the keyset's shim, kernel image and firmware variables."""
        return self.root / "bootkit"

    @property
    def cross_certificate_path(self) -> Path:
        """The certificate of the manifest CA's key that uki-production issued."""
        return self.root / "manifest-ca" / CROSS

    def cross_certificate_pem(self) -> bytes:
        """Return that certificate. Raises: MissingError (a keyset of the predecessor)."""
        return read_bounded(self.cross_certificate_path, MAX_PEM)

    def key(self, role: str) -> KeyPair:
        """Return the key pair of a role in ``ROLES``. Raises: MissingError."""
        folder = self.root / role
        if role not in ROLES:
            raise MissingError(
                f"{role[:80]!r} is no key of a keyset (they are: {', '.join(ROLES)})"
            )
        if not (folder / CERTIFICATE).is_file():
            raise MissingError(f"keyset {self.name} has no key {role}")
        return key_pair(folder)

    def project(self, name: str) -> Project:
        """Return a project. Raises: MissingError, DocumentError (its uuid file), UsageError."""
        folder = self.root / PROJECTS / check_name(name, "project")
        if not (folder / CERTIFICATE).is_file():
            raise MissingError(
                f"keyset {self.name} has no project {name}",
                hint=f"make it: trust project add {self.name} {name}",
            )
        return Project(name, _read_uuid(folder / UUID_FILE), key_pair(folder), folder)

    def list_projects(self) -> list[Project]:
        """Return all projects by name. Raises: DocumentError."""
        return [self.project(folder.name) for folder in _folders(self.root / PROJECTS)]


def list_keysets(keysets_root: Path) -> list[Keyset]:
    """Return the keysets in a folder by name; a folder that does not exist has none."""
    return [
        Keyset(folder.name, folder)
        for folder in _folders(keysets_root)
        if (folder / "manifest-ca" / CERTIFICATE).is_file()
    ]


def list_projects(keyset: Keyset) -> list[Project]:
    """Return all projects of a keyset by name. Raises: DocumentError."""
    return keyset.list_projects()


def list_sudis(project: Project) -> list[Sudi]:
    """Return all device identities of a project by serial."""
    return project.list_sudis()


def find_project(keysets_root: Path, text: str) -> tuple[Keyset, Project]:
    """Return what ``keyset:project`` names (``keyset`` alone means its default project).

    Raises: MissingError, UsageError, DocumentError.
    """
    keyset_name, _, project_name = text.partition(":")
    keyset = Keyset.open(keysets_root, keyset_name)
    return keyset, keyset.project(project_name or DEFAULT_PROJECT)


def key_pair(folder: Path) -> KeyPair:
    """Return the pair in a folder, with its guid if it has one. Raises: DocumentError."""
    path = folder / GUID
    guid = _read_uuid(path) if path.is_file() else None
    return KeyPair(folder / CERTIFICATE, folder / PRIVATE_KEY, guid)


def check_name(name: str, kind: str) -> str:
    """Return ``name`` when it may name a keyset, project or serial (``kind``).

    Raises: UsageError.
    """
    if len(name) > _LONGEST[kind] or not _NAME.fullmatch(name):
        raise UsageError(
            f"{name[:80]!r} cannot be the name of a {kind}",
            hint=f"letters, digits, '.', '_' and '-', first a letter or digit, "
            f"at most {_LONGEST[kind]}",
        )
    return name


@dataclass(frozen=True, slots=True)
class _Made:
    certificate: Certificate
    key: RSAPrivateKey


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


def create_keyset(
    keysets_root: Path,
    name: str,
    *,
    organization: str | Sequence[str],
    passphrase: Secret | None,
    clock: Clock,
    progress: Callable[[str], None] | None = None,
) -> Keyset:
    """Make a keyset with all its keys and the project ``default``.

    ``passphrase`` protects every private key in it. ``progress`` is told each key's name before it
    is made. Raises: ConflictError (it exists), UsageError (a name that cannot be), SpaceError.
    """
    final = keysets_root / check_name(name, "keyset")
    now = clock.now()
    tell = progress or (lambda _role: None)
    organizations = (organization,) if isinstance(organization, str) else tuple(organization)
    unit = f"Project Machine Project {name}"
    with appearing(final, what=f"keyset {name}") as root:
        made: dict[str, _Made] = {}
        for role, common_name, profile, issuer in _PLAN:
            tell(role)
            subject = issuing.name(common_name, unit=unit, organizations=organizations)
            made[role] = _make(profile, subject, made.get(issuer or ""), now)
            folder = root / role
            folder.mkdir(mode=0o700)
            _write_pair(folder, made[role], passphrase)
            if role in ROLES_WITH_GUID:
                _write_text(folder / GUID, str(uuid4()))
        _write_cross(root, made["manifest-ca"].certificate, made["uki-production"], now)
        tell(f"manifest:{DEFAULT_PROJECT}")
        project = root / PROJECTS / DEFAULT_PROJECT
        project.parent.mkdir(mode=0o700)
        project.mkdir(mode=0o700)
        _fill_project(project, uuid4(), made["manifest-ca"], passphrase, now)
    return Keyset.open(keysets_root, name)


def add_project(
    keyset: Keyset,
    name: str,
    *,
    clock: Clock,
    passphrase: Secret | None = None,
    uuid: UUID | None = None,
) -> Project:
    """Make a project, with a random UUID unless one is given.

    ``passphrase`` opens the manifest CA and protects the new key. Raises: ConflictError,
    UsageError (name or passphrase), SignatureError (the CA's files do not belong together).
    """
    final = keyset.root / PROJECTS / check_name(name, "project")
    product = uuid or uuid4()
    for other in keyset.list_projects():
        if other.uuid == product:
            raise ConflictError(f"project {other.name} has the UUID {product} already")
    ca = _open_pair(keyset.key("manifest-ca"), passphrase)
    with appearing(final, what=f"project {name}") as folder:
        _fill_project(folder, product, ca, passphrase, clock.now())
    return keyset.project(name)


def add_sudi(
    project: Project,
    serial: str | None = None,
    *,
    clock: Clock,
    passphrase: Secret | None = None,
) -> Sudi:
    """Make the identity of a machine, with a random UUID as its serial unless one is given.

    ``passphrase`` opens the SUDI CA and protects the new key. Raises: ConflictError, UsageError,
    SignatureError.
    """
    number = check_name(serial if serial is not None else str(uuid4()), "serial")
    final = project.sudi_root / number
    ca = _open_pair(project.keyset.key("sudi-ca"), passphrase)
    subject = issuing.name(number, serial=f"PID:{project.uuid} SN:{number}")
    with appearing(final, what=f"machine {number}") as folder:
        _write_pair(folder, _make(issuing.SUDI, subject, ca, clock.now()), passphrase)
    return project.sudi(number)


def _make(profile: issuing.Profile, subject: Name, issuer: _Made | None, now: datetime) -> _Made:
    key = issuing.new_key(profile)
    certificate = issuing.issue(
        profile,
        subject,
        key.public_key(),
        issuer=None if issuer is None else issuer.certificate,
        issuer_key=key if issuer is None else issuer.key,
        now=now,
    )
    return _Made(certificate, key)


def _fill_project(
    folder: Path, product: UUID, ca: _Made, passphrase: Secret | None, now: datetime
) -> None:
    subject = issuing.name(f"manifest PRODUCT:{product}")
    _write_pair(folder, _make(issuing.PUBLISHER, subject, ca, now), passphrase)
    _write_text(folder / UUID_FILE, str(product))
    (folder / SUDIS).mkdir(mode=0o700)


def _write_cross(root: Path, ca: Certificate, uki: _Made, now: datetime) -> None:
    key = ca.public_key()
    cross = issuing.issue(
        issuing.UKI_CROSS,
        ca.subject,
        key,  # type: ignore[arg-type]  # the CA was made a few lines up, with an RSA key
        issuer=uki.certificate,
        issuer_key=uki.key,
        now=now,
    )
    path = root / "manifest-ca" / CROSS
    write_atomic(path, issuing.certificate_pem(cross), mode=0o640)


def _write_pair(folder: Path, made: _Made, passphrase: Secret | None) -> None:
    write_atomic(folder / PRIVATE_KEY, issuing.key_pem(made.key, passphrase), mode=0o600)
    write_atomic(folder / CERTIFICATE, issuing.certificate_pem(made.certificate), mode=0o640)


def _write_text(path: Path, text: str) -> None:
    write_atomic(path, text.encode("ascii"), mode=0o640)


def _open_pair(pair: KeyPair, passphrase: Secret | None) -> _Made:
    pem = read_bounded(pair.key_path, MAX_PEM)
    return _Made(pair.certificate(), issuing.load_key(pem, passphrase, what=str(pair.key_path)))


def _read_uuid(path: Path) -> UUID:
    data = read_bounded(path, 64)
    try:
        return UUID(data.decode("ascii").strip())
    except ValueError as error:
        raise DocumentError(str(path), [Fault("", 0, "is not a UUID")]) from error


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(
        entry for entry in root.iterdir() if _NAME.fullmatch(entry.name) and entry.is_dir()
    )
