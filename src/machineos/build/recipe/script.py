"""``run`` scripts of a recipe: what the sandbox is told about one, nothing is run here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from machineos.errors import ToolError
from machineos.host.pack.container import PATH, Bind, Box

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# The folders of the root that something is mounted on.
MOUNT_POINTS = ("proc", "dev", "stacker")
RESOLVER = "/etc/resolv.conf"
_PROXIES = ("http_proxy", "https_proxy", "no_proxy")
_INHERITED = (*_PROXIES, *(name.upper() for name in _PROXIES))
_TIMEOUT = 4 * 3600.0
# A script may use the whole machine, but not make it unusable for everybody else.
_LIMITS = (("NPROC", 16384), ("CORE", 0))


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


def script_box(
    script: Script,
    root: Path,
    imports: Path,
    environment: Mapping[str, str],
    *,
    resolver: bool,
) -> Box:
    """Return what ``script`` gets: ``root`` as its root, ``imports`` at ``/stacker``, read-only.

    The environment is the recipe's over ours, and the user's proxies, which go past here: in an
    argument everybody could read their passwords. ``resolver``: there is a file to mount a
    resolv.conf over.
    """
    settings = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", **environment}
    return Box(
        tuple(script.argv),
        root=root,
        binds=(Bind(imports, "/stacker"),),
        network="user" if script.network else "none",
        environment=tuple(settings.items()),
        inherit=_INHERITED if script.network else (),
        resolver=resolver,
        limits=_LIMITS,
    )


def require_good(script: Script, status: int, tail: str, log: Path) -> None:
    """Raises: ToolError with the end of the log, unless the script ended well."""
    if status != 0:
        raise ToolError(
            f"{script.name}: the script ended with status {status}:\n{tail}",
            hint=f"all it printed is in {log}",
        )
