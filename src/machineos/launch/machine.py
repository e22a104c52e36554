"""``trust launch``: from a published manifest to an installed virtual machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.launch.manifest import fetch_install
from machineos.launch.parts import SMALL_DISK, identity_disk, media_for, uefi_variables
from machineos.launch.request import hardware_of, require_new
from machineos.trust.keys.keyset import add_sudi
from machineos.vm import medium as steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from machineos.core.clock import Clock
    from machineos.launch.request import Request
    from machineos.oci.registry.access import Access
    from machineos.trust.keys.contents import Randomness
    from machineos.trust.keys.keyset import Sudi
    from machineos.vm.model import Machine
    from machineos.vm.provider import Provider


def launch_machine(
    request: Request,
    provider: Provider,
    clock: Clock,
    random: Randomness,
    *,
    access: Access,
    say: Callable[[str], None],
) -> Machine:
    """Create the machine, provision it, install it, and return its final definition.

    The manifest is verified first; a machine of that name that exists is left alone. When a boot
    fails, the machine stays, so that its console can be looked at.

    Raises: ConflictError, VerificationError, MissingError, TransferError, MachineError, ToolError.
    """
    require_new(request.name, provider.names())
    say(f"verifying {request.place.local or request.place.url}")
    install = fetch_install(request.place, request.keyset, request.project, clock, access)
    sudi = _identity(request, clock, random)
    hardware = hardware_of(
        request,
        install,
        serial=sudi.serial,
        uefi_vars=uefi_variables(request.keyset, provider),
        free=provider.is_free,
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
            medium = steps.provision_medium(media["provision"], small, SMALL_DISK)
            steps.run_medium(provider, request.name, hardware, medium, clock, watch=say)
        if request.install:
            say("installing")
            medium = steps.install_medium(media["install"], media.get("url"))
            steps.run_medium(provider, request.name, hardware, medium, clock, watch=say)
    final = steps.define(request.name, hardware, medium=None)
    provider.define(final)
    return final


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
