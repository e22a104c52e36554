"""Keysets of the calling user: the options that name them, and opening them.

Whoever opens one hears it when others can read its private keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from machineos.cli import app
from machineos.cli.developer import names
from machineos.cli.options import F
from machineos.core.printable import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from machineos.trust.keys.keyset import Keyset, Project


def keyset(function: F) -> F:
    """Add ``--keyset``."""
    option = click.option(
        "--keyset",
        "keyset_name",
        required=True,
        metavar="KEYSET",
        shell_complete=names.keysets,
        help="The keyset to build for.",
    )
    return option(function)


def project(
    name: str = "project_name",
    *,
    required: bool = True,
    help_text: str = "The product, and who signs for it.",
) -> Callable[[F], F]:
    """Add ``--project``, to be passed on as ``name``."""

    def add(function: F) -> F:
        option = click.option(
            "--project",
            name,
            required=required,
            metavar="KEYSET:PROJECT",
            shell_complete=names.products,
            help=help_text,
        )
        return option(function)

    return add


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
        keys, first = counted(len(exposed), "private key"), exposed[0].relative_to(keyset.root)
        app.say(
            f"warning: others on this machine may read {keys} of keyset "
            f"{keyset.name}, {first} first; close them: trust keyset upgrade {keyset.name}"
        )
    return keyset
