"""``run`` scripts of a recipe: what the sandbox is told about one, nothing is run here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from machineos.core.command import Command
from machineos.errors import ToolError
from machineos.host.pack.unshare import argv_isolated

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

# The folders of the root that something is mounted on.
MOUNT_POINTS = ("proc", "dev", "stacker")
RESOLVER = "/etc/resolv.conf"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROXIES = ("http_proxy", "https_proxy", "no_proxy")
_INHERITED = (*_PROXIES, *(name.upper() for name in _PROXIES))
_TIMEOUT = 4 * 3600.0


@dataclass(frozen=True, slots=True)
class Script:
    """A script of a recipe: ``text``, run as it says in its first line, else by ``/bin/sh -ex``."""

    text: str
    name: str
    network: bool = True
    timeout: float = _TIMEOUT

    @property
    def argv(self) -> list[str]:
        """The command inside the sandbox."""
        path = "/stacker/run"
        return [path] if self.text.startswith("#!") else ["/bin/sh", "-ex", path]

    @property
    def content(self) -> str:
        """The text with a line end at its end."""
        return self.text if self.text.endswith("\n") else f"{self.text}\n"


def sandbox_command(
    script: Script,
    program: Sequence[str],
    root: Path,
    binds: Sequence[tuple[str, str]],
    environment: Mapping[str, str],
) -> Command:
    """Return the command that runs ``script`` with ``root`` as its root.

    ``program`` starts ``host.pack.confine``; ``binds`` are places of the host and where the script
    sees them, read-only. The environment is the recipe's over ours, and the user's proxies, which
    go past here: in an argument everybody could read their passwords.
    """
    plan = {
        "root": str(root),
        "binds": binds,
        "argv": script.argv,
        "inherit": _INHERITED if script.network else (),
        "environment": {"PATH": _PATH, "HOME": "/root", "LANG": "C.UTF-8", **environment},
    }
    inner = [*program, json.dumps(plan)]
    return Command(
        tuple(argv_isolated(inner, network=script.network)), script.timeout, success=None
    )


def require_good(script: Script, status: int, tail: str, log: Path) -> None:
    """Raises: ToolError with the end of the log, unless the script ended well."""
    if status != 0:
        raise ToolError(
            f"{script.name}: the script ended with status {status}:\n{tail}",
            hint=f"all it printed is in {log}",
        )
