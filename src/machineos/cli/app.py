"""What every command shares: errors to exit codes, what is printed where, secrets.

The only layer that prints, exits, and reads the environment. Exit codes are those of
``machineos.errors``, 130 after Ctrl-C.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

import click

from machineos.cli import shape
from machineos.cli.shape import Home, home_of
from machineos.core.printable import shown
from machineos.errors import MachineOSError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from machineos.core.secret import Secret

_INTERRUPTED = 130


def home() -> Home:
    """Return the folders of the calling user. Raises: UsageError (who has none)."""
    known = "" if os.environ.get("HOME") else _recorded_home()
    return home_of(os.environ, os.getuid(), known)


def environment() -> Mapping[str, str]:
    """Return the caller's environment, for credential files, their helpers and proxies; ``HOME`` is
    the one of his record where it is not set."""
    return {"HOME": _recorded_home(), **os.environ} if not os.environ.get("HOME") else os.environ


def main(group: click.Group) -> NoReturn:
    """Run a command and end the process: the console script of each command."""
    # What is built is for everybody to read and the same for all, as for buildah; what is nobody
    # else's business gets its mode where it is made.
    os.umask(0o022)
    if f"_{(group.name or '').upper()}_COMPLETE" in os.environ:
        from machineos.cli import completion

        completion.register()
    signal.signal(signal.SIGTERM, _terminate)
    name = group.name or ""
    try:
        group.main(prog_name=name, standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        words = json.dumps(shape.INTERRUPTED, indent=2) if asked("--json") else "interrupted"
        _fail(words, code=_INTERRUPTED)
    except click.ClickException as error:
        _refuse(error, name)
    except MachineOSError as error:
        _report(error, name)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _report(shape.refused_by_system(error), name)
    sys.exit(0)


def asked(option: str) -> bool:
    """Whether the command line has this option, also one that could not be taken apart."""
    return option in sys.argv


def show_json(value: object) -> None:
    """Print one JSON document."""
    click.echo(shape.json_text(value))


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their column names."""
    for line in shape.table(columns, rows):
        show(line)


def say(line: str) -> None:
    """Print a line for the person who waits: not on standard output, where the result goes."""
    click.echo(shown(line), err=True)


def show(line: str) -> None:
    """Print a line of the result in which there may be words of somebody else."""
    click.echo(shown(line))


def read_passphrase(path: Path | None) -> Secret | None:
    """Return the passphrase in a file, None without one; ``-`` is standard input.

    Raises: MissingError, DocumentError.
    """
    from machineos.core.secretfile import read_secret, read_secret_file

    if path is None:
        return None
    if str(path) == "-":
        return read_secret(sys.stdin.fileno(), name="standard input")
    return read_secret_file(path)


def _recorded_home() -> str:
    import pwd  # a container's user may have a number and no record

    with suppress(KeyError):
        return pwd.getpwuid(os.getuid()).pw_dir
    return ""


def _refuse(error: click.ClickException, name: str) -> NoReturn:
    """Say what is wrong with the command line: as JSON where that was asked for, else as click does
    it, who knows where help is."""
    if not asked("--json"):
        text = io.StringIO()
        error.show(text)
        _fail(shown(text.getvalue().rstrip()), code=error.exit_code)
    context = getattr(error, "ctx", None)
    hint = f"read: {context.command_path if context is not None else name} --help"
    told = UsageError(error.format_message(), hint=hint)
    _fail(json.dumps(shape.error_json(told), indent=2), code=error.exit_code)


def _report(error: MachineOSError, name: str) -> NoReturn:
    if asked("--debug"):
        import traceback

        click.echo(shown("".join(traceback.format_exception(error))), err=True, nl=False)
    if asked("--json"):
        _fail(json.dumps(shape.error_json(error), indent=2), code=error.exit_code)
    _fail(shape.error_text(error, name), code=error.exit_code)


def _fail(text: str, *, code: int) -> NoReturn:
    click.echo(text, err=True)
    sys.exit(code)


def _terminate(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt
