"""``python3 -m machineos.daemon``: mosd. Logs one line per event to standard error, the journal."""

from __future__ import annotations

import gc
import os
import sys

from machineos.core.printable import printable
from machineos.daemon.start import Places, begin
from machineos.errors import MachineOSError


def main() -> int:
    """Run mosd and return its exit status."""
    gc.disable()  # until all modules are loaded, which stay for good
    try:
        start = begin(Places())
        from machineos.daemon.wiring import build  # while LVM works, which takes as long

        gc.freeze()
        gc.enable()
        build(start, notify_socket=os.environ.get("NOTIFY_SOCKET", ""), log=_log).run()
    except MachineOSError as error:
        _log(f"cannot go on: {error.told}")
        return error.exit_code
    return 0


def _log(text: str) -> None:
    line = "; ".join(part.strip() for part in text.splitlines() if part.strip())
    sys.stderr.write(f"mosd: {printable(line)}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
