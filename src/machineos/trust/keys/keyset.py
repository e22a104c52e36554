"""Keysets in folders: reading them, and adding to them. ``contents`` says what is in which file.

Invariant: a keyset, project or device identity is there whole or not at all (built in a hidden
sibling folder, then renamed), and a private key is 0600 before its first byte is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from machineos.core.files import appearing, read_named, write_atomic
from machineos.errors import ConflictError, MissingError
from machineos.trust.keys import x509 as issuing
from machineos.trust.keys.contents import (
    CERTIFICATE,
    CROSS,
    GUID,
    PRIVATE_KEY,
    PROJECTS,
    ROLES,
    SUDIS,
    UUID_FILE,
    Folder,
    Issued,
    check_name,
    is_name,
    keyset_entries,
    parse_uuid,
    project_entries,
    split_project,
    sudi_entries,
)
from machineos.trust.keys.pem import read_certificate
from machineos.trust.verify.chain import MAX_PEM, parse_certificate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.x509 import Certificate

    from machineos.core.clock import Clock
    from machineos.core.secret import Secret
    from machineos.trust.keys.contents import Entry, Randomness

_MAX_UUID = 64


class SystemRandomness:
    """New keys and identifiers from the randomness of this machine."""

    def key(self, profile: issuing.Profile) -> RSAPrivateKey:
        """Return a fresh key of the profile's size."""
        return issuing.new_key(profile)

    def uuid(self) -> UUID:
        """Return a fresh UUID."""
        return uuid4()


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Where a certificate and its private key are; ``guid`` is the owner GUID of UEFI keys."""

    cert_path: Path
    key_path: Path
    guid: UUID | None = None

    def certificate_pem(self) -> bytes:
        """Return the certificate's PEM, bare. Raises: MissingError, DocumentError."""
        return read_certificate(self.cert_path)

    def certificate(self) -> Certificate:
        """Return the certificate. Raises: MissingError, DocumentError, SignatureError."""
        return parse_certificate(self.certificate_pem(), what=str(self.cert_path))

    def certificate_der(self) -> bytes:
        """Return the certificate as DER. Raises: MissingError, DocumentError, SignatureError."""
        return issuing.certificate_der(self.certificate())

    def is_protected(self) -> bool:
        """Whether a passphrase protects the private key. Raises: MissingError, DocumentError."""
        return issuing.is_protected(read_named(self.key_path, MAX_PEM))

    def private_key(self, passphrase: Secret | None) -> RSAPrivateKey:
        """Return the private key.

        Raises: MissingError, DocumentError, UsageError (passphrase), SignatureError (no RSA key).
        """
        pem = read_named(self.key_path, MAX_PEM)
        return issuing.load_key(pem, passphrase, what=str(self.key_path))


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
        if not self.cross_certificate_path.exists():
            raise MissingError(
                f"keyset {self.name} has no manifest-ca/{CROSS}: it is one of the predecessor's",
                hint=f"have it issued: trust keyset upgrade {self.name}",
            )
        return read_named(self.cross_certificate_path, MAX_PEM)

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


def find_project(keysets_root: Path, text: str) -> tuple[Keyset, Project]:
    """Return what ``keyset:project`` names (``keyset`` alone means its default project).

    Raises: MissingError, UsageError, DocumentError.
    """
    keyset_name, project_name = split_project(text)
    keyset = Keyset.open(keysets_root, keyset_name)
    return keyset, keyset.project(project_name)


def key_pair(folder: Path) -> KeyPair:
    """Return the pair in a folder, with its guid if it has one. Raises: DocumentError."""
    path = folder / GUID
    guid = _read_uuid(path) if path.is_file() else None
    return KeyPair(folder / CERTIFICATE, folder / PRIVATE_KEY, guid)


def create_keyset(
    keysets_root: Path,
    name: str,
    *,
    organization: str | Sequence[str],
    passphrase: Secret | None,
    clock: Clock,
    random: Randomness,
    progress: Callable[[str], None] | None = None,
) -> Keyset:
    """Make a keyset with all its keys and the project ``default``.

    ``passphrase`` protects every private key in it. ``progress`` is told each key's name before it
    is made. Raises: ConflictError (it exists), UsageError (a name that cannot be), SpaceError.
    """
    final = keysets_root / check_name(name, "keyset")
    with appearing(final, what=f"keyset {name}") as root:
        entries = keyset_entries(
            name,
            organizations=(organization,) if isinstance(organization, str) else organization,
            passphrase=passphrase,
            now=clock.now(),
            random=random,
            tell=progress or (lambda _role: None),
        )
        _write(root, entries)
    return Keyset.open(keysets_root, name)


def add_project(
    keyset: Keyset,
    name: str,
    *,
    clock: Clock,
    random: Randomness,
    passphrase: Secret | None = None,
    uuid: UUID | None = None,
) -> Project:
    """Make a project, with a random UUID unless one is given.

    ``passphrase`` opens the manifest CA and protects the new key. Raises: ConflictError,
    UsageError (name or passphrase), SignatureError (the CA's files do not belong together).
    """
    final = keyset.root / PROJECTS / check_name(name, "project")
    product = uuid or random.uuid()
    for other in keyset.list_projects():
        if other.uuid == product:
            raise ConflictError(f"project {other.name} has the UUID {product} already")
    ca = _open(keyset.key("manifest-ca"), passphrase)
    with appearing(final, what=f"project {name}") as folder:
        entries = project_entries(
            product, ca, passphrase=passphrase, now=clock.now(), random=random
        )
        _write(folder, entries)
    return keyset.project(name)


def add_sudi(
    project: Project,
    serial: str | None = None,
    *,
    clock: Clock,
    random: Randomness,
    passphrase: Secret | None = None,
) -> Sudi:
    """Make the identity of a machine, with a random UUID as its serial unless one is given.

    ``passphrase`` opens the SUDI CA and protects the new key. Raises: ConflictError, UsageError,
    SignatureError.
    """
    number = check_name(str(random.uuid()) if serial is None else serial, "serial")
    final = project.sudi_root / number
    ca = _open(project.keyset.key("sudi-ca"), passphrase)
    with appearing(final, what=f"machine {number}") as folder:
        entries = sudi_entries(
            project.uuid, number, ca, passphrase=passphrase, now=clock.now(), random=random
        )
        _write(folder, entries)
    return project.sudi(number)


def _write(root: Path, entries: Iterable[Entry]) -> None:
    for entry in entries:
        path = root / entry.path
        if isinstance(entry, Folder):
            path.mkdir(mode=0o700)
        else:
            write_atomic(path, entry.data, mode=entry.mode)


def _open(pair: KeyPair, passphrase: Secret | None) -> Issued:
    return Issued(pair.certificate(), pair.private_key(passphrase))


def _read_uuid(path: Path) -> UUID:
    return parse_uuid(read_named(path, _MAX_UUID), name=str(path))


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(entry for entry in root.iterdir() if is_name(entry.name) and entry.is_dir())
