"""PID 1 of the initrd: runs the phases of its mode, and ends in one of three ways.

It hands over to the verified root; or it is done (provisioning) and powers off; or it says in one
line why it cannot go on and restarts. There is no fourth: no shell, no prompt, no unverified mount.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from machineos.boot import environment
from machineos.boot.console import Console
from machineos.boot.drivers import Drivers
from machineos.core.clock import SystemClock
from machineos.document.between.bootsettings import load_anchors, load_settings
from machineos.errors import MachineOSError
from machineos.host.kernel.syscalls import Power, power

if TYPE_CHECKING:
    from machineos.document.between.bootsettings import Settings

RESTART_DELAY = 10.0
# Modules that are imported only when they are used, by us, the standard library or cryptography.
LATE_IMPORTS = (
    "machineos.boot.sequence",
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
    clock = SystemClock()
    environment.mount_pseudo()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    console = Console(Path("/dev/console"), Path("/dev/kmsg"), clock)
    try:
        settings = load_settings()
        environment.check_command_line(settings, environment.read_text("/proc/cmdline"))
        drivers = Drivers(settings)
        _announce(console, settings)
        # Here, and not above: it takes as long as the kernel needs for its modules meanwhile.
        from machineos.boot import sequence

        drivers.wait()
        sequence.run(settings, load_anchors(), console, clock, drivers)
        console.say("done; powering off")
        power(Power.OFF)
    except MachineOSError as error:
        console.fail(error.message)
    except Exception as error:  # noqa: BLE001 (PID 1 must not die: that would be a kernel panic)
        console.fail(f"unexpected {type(error).__name__}: {error}")
        for line in _trace(error):
            console.say(line)
    console.say(f"restarting in {RESTART_DELAY:.0f} s")
    clock.sleep(RESTART_DELAY)
    power(Power.RESTART)
    sys.exit(1)


def _announce(console: Console, settings: Settings) -> None:
    console.say(f"initrd for {settings.mode}, kernel {settings.kernel}")
    if settings.banner:
        console.say(f"*** {settings.banner} ***")


def _trace(error: BaseException) -> list[str]:
    lines = []
    trace = error.__traceback__
    while trace is not None:
        lines.append(f"  {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}")
        trace = trace.tb_next
    return lines[-8:]
