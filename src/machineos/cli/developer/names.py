"""What the shell may offer where a name is to be typed: keysets, projects, keys and their files.

Names come from folders alone: nothing is opened, and no cryptography is imported, for a person
waits with a finger on the key. Who has no home, or no keysets, is offered nothing.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from machineos.cli import app
from machineos.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    import click

_PROJECTS = "manifest/*/cert.pem"


def keysets(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return the keysets whose names begin so."""
    return _beginning(begun, _keysets())


def products(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return what KEYSET:PROJECT may be that begins so."""
    keyset, colon, _ = begun.partition(":")
    if not colon:
        return _beginning(begun, [f"{name}:" for name in _keysets()])
    return _beginning(begun, [f"{keyset}:{name}" for name in _owners(keyset, _PROJECTS)])


def projects(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return the projects whose names begin so, of the keyset that was named before."""
    return _beginning(begun, _owners(_named(context, "keyset_name"), _PROJECTS))


def keys(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return the keys that begin so, and manifest:PROJECT, of the keyset that was named before."""
    keyset = _named(context, "name")
    owners = [f"manifest:{name}" for name in _owners(keyset, _PROJECTS)]
    return _beginning(begun, _owners(keyset, "*/cert.pem") + owners)


def items(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return the files that begin so, of the key that was named before."""
    key = _named(context, "key").replace(":", "/")
    folder = f"{_named(context, 'name')}/{key}"
    return _beginning(begun, [path.name for path in _found(f"{folder}/*") if path.is_file()])


def _keysets() -> list[str]:
    return [path.parent.parent.name for path in _found("*/manifest-ca/cert.pem")]


def _owners(keyset: str, pattern: str) -> list[str]:
    return [path.parent.name for path in _found(f"{keyset}/{pattern}")] if keyset else []


def _found(pattern: str) -> list[Path]:
    with suppress(UsageError, OSError, ValueError, NotImplementedError):
        return sorted(app.home().keysets.glob(pattern))
    return []


def _named(context: click.Context, parameter: str) -> str:
    return str(context.params.get(parameter) or "")


def _beginning(begun: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(begun)]
