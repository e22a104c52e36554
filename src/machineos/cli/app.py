"""What every command shares: errors to exit codes, ``--json``, completion, progress lines.

The only layer that prints, exits, and reads the environment. Exit codes are those of
``machineos.errors``, 130 after Ctrl-C.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from machineos import __version__
from machineos.errors import DocumentError, MachineOSError, SpaceError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Home:
    """Where a user's things are kept; all of it follows the XDG base directory specification."""

    data: Path
    config: Path
    state: Path
    runtime: Path
    cache: Path
    user: Path

    @property
    def keysets(self) -> Path:
        """The folder of keysets, where the predecessor had it."""
        return self.data / "machine" / "trust" / "keys"


def home(environ: Mapping[str, str] | None = None) -> Home:
    """Return the folders of the calling user. The only place that reads the environment."""
    env = os.environ if environ is None else environ
    user = Path(env.get("HOME") or "/root")

    def folder(variable: str, default: Path) -> Path:
        value = env.get(variable, "")
        return Path(value) if value.startswith("/") else default

    return Home(
        data=folder("XDG_DATA_HOME", user / ".local/share"),
        config=folder("XDG_CONFIG_HOME", user / ".config"),
        state=folder("XDG_STATE_HOME", user / ".local/state"),
        runtime=folder("XDG_RUNTIME_DIR", Path(f"/run/user/{os.getuid()}")),
        cache=folder("XDG_CACHE_HOME", user / ".cache"),
        user=user,
    )


def environment() -> Mapping[str, str]:
    """Return the caller's environment, for credential files and their helpers."""
    return os.environ


def main(group: click.Group) -> NoReturn:
    """Run a command and end the process: the console script of each command."""
    signal.signal(signal.SIGTERM, _terminate)
    name = group.name or ""
    try:
        group.main(prog_name=name, standalone_mode=False)
    except click.exceptions.Abort:
        _fail("interrupted", code=_INTERRUPTED)
    except KeyboardInterrupt:
        _fail("interrupted", code=_INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except MachineOSError as error:
        _report(error, name)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _report(_refused_by_system(error), name)
    sys.exit(0)


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--json`` to a command that shows something."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")(
        function
    )


def show_json(value: object) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(value, indent=2, sort_keys=False, default=str))


def show_table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print rows under their column names, each column as wide as its widest cell."""
    widths = [max(len(cell) for cell in cells) for cells in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())


def group(name: str, help_text: str) -> Callable[[Callable[..., Any]], click.Group]:
    """Return the decorator for a command's group: --version, completion, help without argument."""

    def decorate(function: Callable[..., Any]) -> click.Group:
        decorated = click.version_option(__version__, prog_name=name)(function)
        result = click.group(
            name=name, help=help_text, context_settings={"help_option_names": ["-h", "--help"]}
        )(decorated)
        result.add_command(_completion(name))
        return result

    return decorate


def _completion(name: str) -> click.Command:
    @click.command("completion", help=f"Print the shell completion of {name}.")
    @click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
    def completion(shell: str) -> None:
        from click.shell_completion import get_completion_class

        kind = get_completion_class(shell)
        root = click.get_current_context().find_root().command
        if kind is not None:
            variable = f"_{name.upper().replace('-', '_')}_COMPLETE"
            click.echo(kind(root, {}, name, variable).source())

    return completion


def _refused_by_system(error: OSError) -> MachineOSError:
    """Return what the system refused, in its own words: a folder that may not be written, a name
    that is taken by something else, a disk that is full."""
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    text = f"{where}{error.strerror or error}"
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    return SpaceError(text) if full else MachineOSError(text)


def _report(error: MachineOSError, name: str) -> NoReturn:
    if "--json" in sys.argv:
        body: dict[str, object] = {
            "error": type(error).__name__,
            "message": error.message,
            "hint": error.hint,
        }
        if isinstance(error, DocumentError):
            body["faults"] = [
                {"path": fault.path, "line": fault.line, "message": fault.message}
                for fault in error.faults
            ]
        click.echo(json.dumps(body, indent=2), err=True)
        sys.exit(error.exit_code)
    text = f"{name}: {error.message}"
    if error.hint:
        text += f"\n{name}: {error.hint}"
    _fail(text, code=error.exit_code)


def _fail(text: str, *, code: int) -> NoReturn:
    click.echo(text, err=True)
    sys.exit(code)


def _terminate(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt
