"""Taking away what an earlier mosd left: a service, or an image that none uses any more. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from machineos.core.digest import Digest
from machineos.core.serviceid import ServiceId
from machineos.service.plan import steps
from machineos.service.plan.facts import Part, World, known
from machineos.service.plan.lxc import CONFIG, SECCOMP

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.service.plan.model import Folders
    from machineos.service.plan.steps import Act


def of_service(folders: Folders, service: ServiceId, *, unit: bool) -> tuple[Act[object], ...]:
    """Return the steps that stop a service and take away its unit, its files and its root.

    ``unit``: whether its unit is there. The root goes last, so that what is cut off is found again.
    """
    home = folders.lxc / service.folder
    root = folders.roots / service.folder
    path = folders.units / service.unit
    return (
        *(_stopping(service, path) if unit else ()),
        *(steps.RemoveFile(home / name) for name in (CONFIG, SECCOMP)),
        steps.RemoveFolder(home),
        steps.Unmount(root),
        steps.RemoveFolder(root),
    )


def _stopping(service: ServiceId, path: Path) -> tuple[Act[object], ...]:
    return (
        steps.StopUnits((service.unit,)),
        steps.RemoveFile(path),
        steps.ReloadUnits(),
        steps.Say(f"{service}: stopped and removed"),
    )


def of_image(folders: Folders, digest: Digest) -> tuple[Act[object], ...]:
    """Return the steps that unmount an image and give up its device."""
    folder = folders.images / digest.hex
    return (
        steps.Unmount(folder),
        steps.CloseLayer(digest),
        steps.RemoveFolder(folder),
        steps.Say(f"unmounted the image {digest.hex}"),
    )


@dataclass(frozen=True, slots=True)
class RemoveService(Part[World]):
    """A service that is not wanted, or that may not run any more."""

    service: ServiceId
    name = "remove a service"
    needs = frozenset({"what is there"})
    gives = frozenset({"removed"})

    def plan(self, facts: World) -> tuple[Act[object], ...]:
        """Take it away, with its unit if it has one."""
        unit = self.service.unit in known(facts.around).units
        return of_service(facts.policy.folders, self.service, unit=unit)


@dataclass(frozen=True, slots=True)
class RemoveImage(Part[World]):
    """An image that no service uses any more."""

    digest: Digest
    name = "remove an image"
    needs = frozenset({"what is there"})
    gives = frozenset({"removed"})

    def plan(self, facts: World) -> tuple[Act[object], ...]:
        """Take it away."""
        return of_image(facts.policy.folders, self.digest)


def leftovers(world: World) -> tuple[RemoveService | RemoveImage, ...]:
    """Return what there is that the hand-over does not name: services first, then images."""
    wanted = {service.layer.blob_digest for service in world.handover.services}
    images = (Digest.of_hex(name) for name in known(world.around).images)
    return (
        *(RemoveService(service) for service in sorted(_stale(world))),
        *(RemoveImage(image) for image in images if image is not None and image not in wanted),
    )


def _stale(world: World) -> set[ServiceId]:
    """Return the services of which something is there that should not be.

    A service that is only mounted has neither unit nor files: with those it is a container that
    was there before, or what is left of it.
    """
    services, around = world.handover.services, known(world.around)
    running = {service.id for service in services if service.type == "container"}
    wanted = {service.id for service in services}
    found = {ServiceId.of_unit(name) for name in around.units} - running
    found |= {ServiceId.of_folder(name) for name in around.homes} - running
    found |= {ServiceId.of_folder(name) for name in around.roots} - wanted
    return {service for service in found if service is not None}
