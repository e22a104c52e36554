"""What Docker, podman and skopeo are asked for: an image of this machine, as an archive.

All three write the form of ``docker save``, so that an image comes out the same whoever hands it
over: ``docker save(1)``, ``podman-save(1)``, ``skopeo-copy(1)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.core.command import Command
from machineos.errors import MissingToolError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

DOCKER, PODMAN, SKOPEO = "docker", "podman", "skopeo"
_ABLE = {"docker-daemon": (DOCKER,), "containers-storage": (PODMAN, SKOPEO)}
_TIMEOUT = 3600.0
# Where the user's engine is and keeps its images.
_ENVIRONMENT = (
    "HOME", "USER", "TMPDIR", "XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME",
    "DBUS_SESSION_BUS_ADDRESS", "SSH_AUTH_SOCK", "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG",
    "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_API_VERSION", "CONTAINER_HOST",
    "CONTAINER_CONNECTION", "CONTAINER_SSHKEY", "CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF",
    "STORAGE_DRIVER", "STORAGE_OPTS",
)  # fmt: skip


def choose_program(way: str, name: str, installed: Callable[[str], object]) -> str:
    """Return the program that hands over the image ``name``; ``way`` is ``docker-daemon`` or
    ``containers-storage``. Raises: MissingToolError when none is ``installed``."""
    able = _ABLE[way]
    for program in able:
        if installed(program):
            return program
    raise MissingToolError(
        f"{way}:{name}: {' or '.join(able)} is not installed",
        hint=f"install it; or, where the image is, run {able[0]} save -o image.tar {name}, and "
        "name docker-archive:image.tar",
    )


def save_command(program: str, name: str, output: Path, environ: Mapping[str, str]) -> Command:
    """Return the command of ``program`` that writes the image ``name`` to ``output``, which is not
    there yet; ``environ`` is the user's."""
    match program:
        case "docker":
            argv: tuple[str, ...] = (DOCKER, "save", "--output", str(output), name)
        case "podman":
            argv = (PODMAN, "save", "--quiet", "--format", "docker-archive", "--output",
                    str(output), name.lstrip("@"))  # fmt: skip
        case _:
            argv = (SKOPEO, "copy", "--quiet", f"containers-storage:{name}",
                    f"docker-archive:{output}")  # fmt: skip
    known = tuple((key, environ[key]) for key in _ENVIRONMENT if key in environ)
    return Command(argv, _TIMEOUT, env=known)
