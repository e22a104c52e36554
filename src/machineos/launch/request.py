"""What to launch, and what the machine is made of: decided from the request and the manifest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from machineos.build.os.workshop import ORDINARY
from machineos.errors import ConflictError
from machineos.vm.medium import Hardware
from machineos.vm.ports import ports_from_manifest

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from machineos.core.secret import Secret
    from machineos.document.product.install import Install, Protocol
    from machineos.oci.model.place import Place
    from machineos.trust.keys.keyset import Keyset, Project
    from machineos.vm.ports import Free


# What a guest on QEMU's user network calls the host it runs on, and what the host calls itself.
_GUEST_VIEW, _HOST_VIEW = "10.0.2.2", "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Request:
    """What to launch. ``disk`` in bytes, ``memory`` in MiB; an empty ``serial`` makes a new one."""

    name: str
    place: Place
    keyset: Keyset
    project: Project
    serial: str = ""
    disk: int = 20 << 30
    memory: int = 2048
    cpus: int = 2
    install: bool = True
    passphrase: Secret | None = None
    variant: str = ORDINARY


def seen_from_here(host: str) -> str:
    """Return the ``host[:port]`` of a registry as this host calls it."""
    name, colon, port = host.partition(":")
    return f"{_HOST_VIEW if name == _GUEST_VIEW else name}{colon}{port}"


def require_new(name: str, taken: Collection[str]) -> None:
    """Raises: ConflictError when there is a machine of that name."""
    if name in taken:
        raise ConflictError(
            f"machine {name} exists already",
            hint=f"machine start {name}, or machine delete {name} and launch again",
        )


def published_ports(install: Install) -> list[tuple[Protocol, int]]:
    """Return protocol and host port of everything that the manifest publishes, in its order."""
    return [
        (port.protocol, port.host)
        for target in install.targets
        for port in target.network.ports or ()
    ]


def hardware_of(
    request: Request, install: Install, *, serial: str, uefi_vars: Path, free: Free
) -> Hardware:
    """Return what the machine is made of; ``free`` tells which ports of the host it can have.

    Raises: MachineError.
    """
    return Hardware(
        serial=serial,
        uefi_vars=uefi_vars,
        disk=request.disk,
        memory=request.memory,
        cpus=request.cpus,
        ports=ports_from_manifest(published_ports(install), free),
    )
