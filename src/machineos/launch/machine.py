"""``trust launch``: from a published manifest to an installed virtual machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from machineos.build.os.appliance import ORDINARY
from machineos.errors import ConflictError
from machineos.launch.parts import identity_disk, media_for, uefi_variables
from machineos.launch.place import verified_install
from machineos.trust.keys.keyset import add_sudi
from machineos.vm import medium as steps
from machineos.vm.ports import is_free, ports_from_manifest

if TYPE_CHECKING:
    from collections.abc import Callable

    from machineos.core.clock import Clock
    from machineos.core.secret import Secret
    from machineos.document.product.install import Install, Protocol
    from machineos.oci.model.place import Place
    from machineos.oci.registry.auth import Credentials
    from machineos.trust.keys.contents import Randomness
    from machineos.trust.keys.keyset import Keyset, Project, Sudi
    from machineos.vm.model import Machine
    from machineos.vm.store import MachineStore


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


def launch_machine(
    request: Request,
    store: MachineStore,
    clock: Clock,
    random: Randomness,
    *,
    credentials: Credentials | None,
    say: Callable[[str], None],
) -> Machine:
    """Create the machine, provision it, install it, and return its final definition.

    The manifest is verified first; a machine of that name that exists is left alone. When a boot
    fails, the machine stays, so that its console can be looked at.

    Raises: ConflictError, VerificationError, MissingError, TransferError, MachineError, ToolError.
    """
    if request.name in store.names():
        raise ConflictError(
            f"machine {request.name} exists already",
            hint=f"machine start {request.name}, or machine delete {request.name} and launch again",
        )
    say(f"verifying {request.place.local or request.place.url}")
    install = verified_install(request.place, request.keyset, request.project, clock, credentials)
    sudi = _identity(request, clock, random)
    hardware = steps.Hardware(
        serial=sudi.serial,
        uefi_vars=uefi_variables(request.keyset),
        disk=request.disk,
        memory=request.memory,
        cpus=request.cpus,
        ports=ports_from_manifest(published_ports(install), is_free),
    )
    with media_for(
        request.place,
        request.keyset,
        request.project,
        passphrase=request.passphrase,
        variant=request.variant,
        clock=clock,
        say=say,
    ) as media:
        with identity_disk(sudi.pair, request.passphrase) as small:
            say(f"provisioning {sudi.serial}")
            medium = steps.provision_medium(media["provision"], small)
            steps.run_medium(store, request.name, hardware, medium, clock, watch=say)
        if request.install:
            say("installing")
            medium = steps.install_medium(media["install"], media.get("url"))
            steps.run_medium(store, request.name, hardware, medium, clock, watch=say)
    final = steps.define(request.name, hardware, medium=None)
    with store.lock(request.name):
        store.replace(final)
    return final


def published_ports(install: Install) -> list[tuple[Protocol, int]]:
    """Return protocol and host port of everything that the manifest publishes, in its order."""
    return [
        (port.protocol, port.host)
        for target in install.targets
        for port in target.network.ports or ()
    ]


def _identity(request: Request, clock: Clock, random: Randomness) -> Sudi:
    known = {one.serial: one for one in request.project.list_sudis()}
    if request.serial in known:
        return known[request.serial]
    return add_sudi(
        request.project,
        request.serial or None,
        clock=clock,
        random=random,
        passphrase=request.passphrase,
    )
