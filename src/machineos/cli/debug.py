"""``--debug``: what a command does while it does it: phases and steps, requests, other programs.

The interpreter tells it by its audit events (PEP 578): of programs by itself, of requests, phases
and steps because we raise one there. So nobody passes a logger along, and without ``--debug``
nobody listens. No event has a body, a header, an environment or what a program reads; a query of a
URL is left out, since it may be signed.
"""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import click

from machineos.core.printable import shown

if TYPE_CHECKING:
    from machineos.core.clock import Clock

_LONGEST = 2000


def listen(clock: Clock) -> None:
    """Show a line on standard error for each event from now on, until the process ends."""
    start = clock.monotonic()

    def hear(event: str, arguments: tuple[object, ...]) -> None:
        line = line_of(event, arguments)
        if line:
            line = shown(f"debug {clock.monotonic() - start:8.3f} {line}")
            click.echo(line[:_LONGEST], err=True)

    sys.addaudithook(hear)


def line_of(event: str, arguments: tuple[object, ...]) -> str:
    """Return what an audit event says, empty for one that nobody needs."""
    match event, arguments:
        case "subprocess.Popen", (_, (str() | list() | tuple()) as argv, folder, _):
            words = [argv] if isinstance(argv, str) else [str(word) for word in argv]
            where = f" (in {folder})" if folder is not None else ""
            return f"run {shlex.join(words)}{where}"
        case "machineos.request", (method, str() as url):
            return f"request {method} {without_query(url)}"
        case "machineos.answer", (method, str() as url, status):
            return f"answer {status} to {method} {without_query(url)}"
        case "machineos.phase", (name,):
            return f"phase {name}"
        case "machineos.step", (name, where):
            return f"step {name} {where}".rstrip()
        case _:
            return ""


def without_query(url: str) -> str:
    """Return a URL with three dots for its query."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(query="..." if parts.query else "", fragment=""))
