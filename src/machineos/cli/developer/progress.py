"""What a person sees while something long is under way: the line it is at, how long that takes, how
much is copied.

Everything goes to standard error, and each line stays there, so that a log of it reads the same.
Only on a terminal is anything drawn, and only then is rich imported.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from machineos.cli import app
from machineos.core import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from machineos.oci.graph.copy import Progress as Copied

_MIB = 1 << 20


class Watch(Protocol):
    """Hears what is going on. Both methods may be called from any thread."""

    def say(self, line: str) -> None:
        """Take the line that something has got to."""
        ...

    def copied(self, report: Copied) -> None:
        """Take the state of a copy."""
        ...


class Lines:
    """Prints each line as it comes, and what a copy leaves out, once."""

    def __init__(self) -> None:
        self._skipped: set[str] = set()

    def say(self, line: str) -> None:
        """Print the line."""
        app.say(line)

    def copied(self, report: Copied) -> None:
        """Print what was left out; numbers are for those who see them move."""
        for line in report.skipped:
            if line not in self._skipped:
                self._skipped.add(line)
                self.note(f"skip {line}")

    def note(self, line: str) -> None:
        """Print a line beside the one that something has got to."""
        app.say(line)


class Drawn(Lines):
    """Shows the last line with a spinner and its time; the ones before it stand above."""

    def __init__(self, console: Console) -> None:
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        super().__init__()
        shown = TextColumn("{task.description}{task.fields[amount]}", markup=False)
        self._bar = Progress(
            SpinnerColumn(),
            shown,
            TimeElapsedColumn(),
            console=console,
            transient=True,
            redirect_stdout=False,  # what is printed there is the result
            redirect_stderr=False,
        )
        self._task = self._bar.add_task("", amount="", total=None)
        self._line = ""

    def __enter__(self) -> Drawn:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._keep()
        self._bar.stop()

    def say(self, line: str) -> None:
        """Let the line before stand and begin with this one."""
        self._keep()
        self._line = line
        self._bar.reset(self._task, description=printable.shown(line), amount="")

    def copied(self, report: Copied) -> None:
        """Show how much of a copy is done."""
        super().copied(report)
        self._bar.update(self._task, amount=amount(report.bytes, report.bytes_total))

    def note(self, line: str) -> None:
        """Let the line stand above the one that moves."""
        self._bar.console.print(
            printable.shown(line), markup=False, highlight=False, soft_wrap=True
        )

    def _keep(self) -> None:
        if self._line:
            self.note(self._line)
        self._line = ""


def amount(done: int, total: int) -> str:
    """Return how much is copied, empty when there is nothing to copy."""
    return f"  {done // _MIB} of {total // _MIB} MiB" if total else ""


@contextmanager
def shown(*, plain: bool = False) -> Iterator[Watch]:
    """Yield who is to be told of what goes on in the block; ``plain`` draws nothing."""
    if plain or not sys.stderr.isatty() or app.asked("--debug"):
        yield Lines()
        return
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_dumb_terminal:  # it cannot take a line back, so each stands at once
        yield Lines()
        return
    with Drawn(console) as drawn:
        yield drawn
