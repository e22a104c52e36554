"""PID 1 of the initrd: runs the phases of its mode, and ends in one of three ways.

It hands over to the verified root; or it is done (provisioning) and powers off; or it says why it
cannot go on and what to do, a line each, and restarts. There is no fourth: no shell, no prompt, no
unverified mount.
"""

from __future__ import annotations

import sys
from itertools import zip_longest
from typing import TYPE_CHECKING, NoReturn

from machineos.boot.bringup import BringUp
from machineos.document.between.bootsettings import parse_settings
from machineos.errors import BootError, MachineOSError

if TYPE_CHECKING:
    from machineos.boot.host import First
    from machineos.document.between.bootsettings import Settings

RESTART_DELAY = 10.0
_TRACE_LINES = 8
# Modules that are imported only when they are used, by us, the standard library or cryptography.
# The phases are not among them: ``boot.plan`` finds them, at build time too.
LATE_IMPORTS = (
    "machineos.boot.runner",
    "machineos.boot.plan",
    "machineos.boot.machine",
    "machineos.host.disk.box",
    "cryptography.hazmat.backends.openssl.backend",  # to make a key, in mode install
    "cryptography.hazmat.bindings._rust",
    "cryptography.hazmat.primitives.asymmetric.padding",
    "cryptography.hazmat.primitives.ciphers.modes",
    "cryptography.hazmat.primitives.serialization.pkcs7",
    "encodings.ascii",
    "encodings.idna",
    "encodings.utf_16_le",
    "msgspec.json",
)


def main() -> NoReturn:
    """Run as ``/init``; never returns."""
    start(BringUp())


def start(first: First) -> NoReturn:
    """Boot the machine that ``first`` belongs to; never returns.

    What fails before there is a console cannot be told to anybody: PID 1 ends, the kernel panics,
    and ``panic=`` of the command line restarts the machine.
    """
    first.mount_pseudo()
    first.ignore_signals()
    first.open_console()
    try:
        _boot(first)
        first.say("done; powering off")
        first.power_off()
    except MachineOSError as error:
        first.fail(error.message)
        if error.hint:
            first.say(f"what to do: {error.hint}")
    except Exception as error:  # noqa: BLE001 (PID 1 must not die: that would be a kernel panic)
        first.fail(f"unexpected {type(error).__name__}: {error}")
        for line in _trace(error):
            first.say(line)
    for line in first.seen():
        first.say(line)
    first.say(f"restarting in {RESTART_DELAY:.0f} s")
    first.sleep(RESTART_DELAY)
    first.restart()
    sys.exit(1)


def check_command_line(settings: Settings, actual: str) -> None:
    """Refuse a kernel command line that is not the one inside the signed UKI.

    systemd-stub ignores one from outside under Secure Boot and measures add-ons into PCR 12; this
    is the second lock on the same door (peers: UKI command line attacks).
    Raises: BootError.
    """
    if actual.split() != settings.command_line.split():
        raise BootError(
            "the kernel command line is not the one that was signed: "
            f"{_difference(settings.command_line.split(), actual.split())}",
            hint="take add-ons and options of the boot entry away, and switch Secure Boot on",
        )


def _difference(signed: list[str], actual: list[str]) -> str:
    """Return the first word that is in the place of another."""
    pairs = enumerate(zip_longest(signed, actual, fillvalue="nothing"), 1)
    return next(f"word {at} is {b!r:.120}, not {a!r:.120}" for at, (a, b) in pairs if a != b)


def _boot(first: First) -> None:
    """Check the command line, start loading drivers, and run the plan beside that."""
    settings = parse_settings(first.read_settings())
    check_command_line(settings, first.read_command_line())
    first.load_drivers(settings)
    first.say(f"initrd for {settings.mode}, kernel {settings.kernel}")
    if settings.banner:
        first.say(f"*** {settings.banner} ***")
    # Here, and not above: it takes as long as the kernel needs for its modules meanwhile.
    from machineos.boot import runner

    runner.run(settings, first.host())


def _trace(error: BaseException) -> list[str]:
    """Return the places that an error came through, the last eight."""
    lines = []
    trace = error.__traceback__
    while trace is not None:
        lines.append(f"  {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}")
        trace = trace.tb_next
    return lines[-_TRACE_LINES:]
