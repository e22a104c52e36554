"""The installer's main program: builds the machine it runs on, once, and takes the phases."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

from machineos.core.clock import SystemClock
from machineos.core.steps import Runner
from machineos.errors import UsageError
from machineos.install.host import LinuxHost
from machineos.install.phases import PHASES, given
from machineos.install.source import Wish
from machineos.install.steps import perform
from machineos.oci.model.place import Place

if TYPE_CHECKING:
    from collections.abc import Callable

    from machineos.core.facts import Facts
    from machineos.install.steps import Host


def wish_of(source: str, *, from_medium: bool, disk: str, plain_http: bool) -> Wish:
    """Return what the command line asks for. Raises: UsageError, DocumentError."""
    if from_medium == bool(source):
        raise UsageError("say either SOURCE or --from-medium")
    place = None if from_medium else Place.parse_remote(source, plain_http=plain_http)
    return Wish(place, disk)


def install(wish: Wish, host: Host, *, uuid: str) -> None:
    """Install the machine ``host``. Raises: MachineOSError, OSError; what was on the disk is lost
    from the moment on that everything has been fetched and verified."""
    runner: Runner[Facts] = Runner(partial(perform, host))
    facts = given(wish, uuid=uuid)
    runner.run(PHASES, facts, given=facts.names())


def main(wish: Wish, say: Callable[[str], None]) -> None:
    """Install this machine. Raises: see ``install``."""
    with LinuxHost(SystemClock(), say) as host:
        install(wish, host, uuid=str(uuid4()))
