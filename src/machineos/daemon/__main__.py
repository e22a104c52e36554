"""``python3 -m machineos.daemon``: mosd. Logs one line per event to standard error, the journal."""

from __future__ import annotations

import os
import sys

from machineos.daemon.wiring import build
from machineos.errors import MachineOSError


def main() -> int:
    """Run mosd and return its exit status."""
    try:
        build(notify_socket=os.environ.get("NOTIFY_SOCKET", ""), log=_log).run()
    except MachineOSError as error:
        _log(f"cannot go on: {error}{'; ' if error.hint else ''}{error.hint}")
        return error.exit_code
    return 0


def _log(text: str) -> None:
    line = "; ".join(part.strip() for part in text.splitlines() if part.strip())
    sys.stderr.write(f"mosd: {line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
