"""Keysets of the calling user, opened: with a word where others can read their private keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.cli import app

if TYPE_CHECKING:
    from machineos.trust.keys.keyset import Keyset, Project


def open_keyset(name: str) -> Keyset:
    """Return the keyset ``name``. Raises: MissingError, UsageError (not a keyset's name)."""
    from machineos.trust.keys.keyset import Keyset

    return _told(Keyset.open(app.home().keysets, name))


def open_project(text: str) -> tuple[Keyset, Project]:
    """Return what ``keyset:project`` names. Raises: MissingError, UsageError, DocumentError."""
    from machineos.trust.keys.keyset import find_project

    keyset, project = find_project(app.home().keysets, text)
    return _told(keyset), project


def _told(keyset: Keyset) -> Keyset:
    from machineos.trust.keys.upgrade import exposed_keys

    exposed = exposed_keys(keyset)
    if exposed:
        first = exposed[0].relative_to(keyset.root)
        app.say(
            f"warning: others on this machine may read {len(exposed)} private keys of keyset "
            f"{keyset.name}, {first} first; close them: trust keyset upgrade {keyset.name}"
        )
    return keyset
