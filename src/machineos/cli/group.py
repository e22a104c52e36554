"""The group of a program's commands: version, help without argument, completion, --debug."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from machineos import __version__

if TYPE_CHECKING:
    from collections.abc import Callable


def group(name: str, help_text: str) -> Callable[[Callable[..., Any]], click.Group]:
    """Return the decorator for a command's group: --version, --debug, completion, help without
    argument."""

    def decorate(function: Callable[..., Any]) -> click.Group:
        decorated = click.version_option(__version__, prog_name=name)(function)
        decorated = click.option(
            "--debug",
            is_flag=True,
            expose_value=False,
            callback=_debug,
            help="Show each step, request and call of another program as it comes.",
        )(decorated)
        result = click.group(
            name=name, help=help_text, context_settings={"help_option_names": ["-h", "--help"]}
        )(decorated)
        result.add_command(_completion(name))
        return result

    return decorate


def _debug(context: click.Context, _parameter: click.Parameter, asked: bool) -> None:
    if asked and not context.resilient_parsing:
        from machineos.cli import debug
        from machineos.core.clock import SystemClock

        debug.listen(SystemClock())


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
