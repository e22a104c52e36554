"""Options that several commands take, each declared once: the same word means the same everywhere.

Only click: nothing here reads a file or the environment.
"""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import click

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")
STANDARD_INPUT = Path("/dev/stdin")
LATEST_EPOCH = (1 << 32) - 1  # what a squashfs can hold


def input_file(
    _context: click.Context, _parameter: click.Parameter, given: Path | None
) -> Path | None:
    """Return the file to be read from its begin to its end: ``-`` is standard input, and
    ``<(command)`` of a shell is one like any other. The callback of such a parameter."""
    return STANDARD_INPUT if str(given) == "-" else given


def as_json(function: F) -> F:
    """Add ``--json`` to a command that shows something."""
    option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
    return option(function)


def plain_http(function: F) -> F:
    """Add ``--plain-http``."""
    option = click.option(
        "--plain-http",
        is_flag=True,
        help="Speak HTTP without TLS, also to registries that are not on the loopback.",
    )
    return option(function)


class Reach(NamedTuple):
    """What the options say of how registries are reached."""

    plain_http: bool = False
    ca_file: Path | None = None
    auth_file: Path | None = None


def registries(function: F) -> F:
    """Add the options of every command that speaks to registries; it takes them as ``reach``."""

    @wraps(function)
    def reaching(
        *args: Any,  # noqa: ANN401
        plain_http: bool,
        tls_ca: Path | None,
        authfile: Path | None,
        **given: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        return function(*args, reach=Reach(plain_http, tls_ca, authfile), **given)

    named = click.Path(exists=True, dir_okay=False, path_type=Path)
    for option in (
        click.option(
            "--authfile",
            type=named,
            metavar="FILE",
            help="Credentials of registries, instead of the files of podman, skopeo and Docker.",
        ),
        click.option(
            "--tls-ca",
            type=named,
            metavar="CA.pem",
            help="A CA to believe in TLS besides the system's; TLS on the loopback too.",
        ),
        plain_http,
    ):
        option(reaching)
    return cast("F", reaching)


def passphrase_file(function: F) -> F:
    """Add ``--passphrase-file``."""
    option = click.option(
        "--passphrase-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Read the keyset's passphrase from FILE ('-' for standard input, /dev/fd/3 for an "
        "open descriptor).",
    )
    return option(function)


def epoch(default: str) -> Callable[[F], F]:
    """Add ``--epoch``; ``default`` says what counts without it."""

    def add(function: F) -> F:
        option = click.option(
            "--epoch",
            type=click.IntRange(0, LATEST_EPOCH),
            envvar="SOURCE_DATE_EPOCH",
            show_envvar=True,
            help=f"Latest time in what is made, in seconds since 1970 (default: {default}).",
        )
        return option(function)

    return add


def cache(function: F) -> F:
    """Add ``--cache``; the folder is absolute, since programs that are given it run elsewhere."""
    option = click.option(
        "--cache",
        type=click.Path(file_okay=False, path_type=Path),
        callback=lambda _context, _option, folder: folder and folder.absolute(),
        help="Folder for what is kept between builds.",
    )
    return option(function)
