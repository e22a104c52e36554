"""Keysets of the predecessor: what ours have beside, and private keys that others can read.

Invariant: no key and no certificate that is there is changed; what is added follows from them.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from machineos.core.files import write_atomic
from machineos.trust.keys.contents import PRIVATE_KEY, PROJECTS, ROLES, SUDIS, Issued, cross_entry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from machineos.core.clock import Clock
    from machineos.core.secret import Secret
    from machineos.trust.keys.keyset import Keyset

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def exposed_keys(keyset: Keyset) -> list[Path]:
    """Return the private keys of a keyset that not only their owner may use, sorted."""
    return sorted(path for path in _private_keys(keyset.root) if _mode(path) & _OTHERS)


def close_keys(keyset: Keyset) -> list[Path]:
    """Make every private key its owner's alone and return those that were not. Raises: OSError."""
    exposed = exposed_keys(keyset)
    for path in exposed:
        path.chmod(_mode(path) & ~_OTHERS)
    return exposed


def issue_missing(keyset: Keyset, *, clock: Clock, passphrase: Secret | None) -> list[Path]:
    """Issue what a keyset of the predecessor lacks and return the new files: the certificate with
    which uki-production vouches for the manifest CA. ``passphrase`` opens uki-production.

    Raises: MissingError (a key of it), UsageError (passphrase), SignatureError, DocumentError.
    """
    if keyset.cross_certificate_path.exists():
        return []
    uki = keyset.key("uki-production")
    issuer = Issued(uki.certificate(), uki.private_key(passphrase))
    entry = cross_entry(keyset.key("manifest-ca").certificate(), issuer, clock.now())
    write_atomic(keyset.root / entry.path, entry.data, mode=entry.mode)
    return [keyset.root / entry.path]


def _private_keys(root: Path) -> Iterator[Path]:
    folders = [root / role for role in ROLES]
    projects = sorted((root / PROJECTS).glob("*"))
    for folder in (*folders, *projects, *(one for p in projects for one in (p / SUDIS).glob("*"))):
        path = folder / PRIVATE_KEY
        if path.is_file():
            yield path


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
