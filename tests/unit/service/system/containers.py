"""Services as real containers: everything is real but systemd, LVM and dm-verity."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from contracts.linux import PlainLayers
from machineos.document.between.handover import Handover, Service, Volume
from machineos.service.act.linux import LinuxHost
from machineos.service.act.manager import Manager, performing
from machineos.service.plan.facts import Policy
from machineos.service.plan.model import Folders
from waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from contracts.linux import FileVolumes
    from fakes.units import ProcessUnits
    from machineos.core.steps import Step
    from machineos.document.between.status import ServiceStatus
    from unit.service.system.store import Store

VOLUMES = (Volume("blobs", persistent=True, size=8), Volume("memory", persistent=False, size=1))


@dataclass
class Bed:
    """Managers, one after the other, on one host."""

    base: Path
    store: Store
    units: ProcessUnits
    volumes: FileVolumes
    layers: PlainLayers = field(default_factory=PlainLayers)
    lines: list[str] = field(default_factory=list)
    rules: list[object] = field(default_factory=list)

    @property
    def folders(self) -> Folders:
        base = self.base
        return Folders(base / "run", self.units.folder, data=base / "data", mapper=base / "dev")

    def manager(self, *services: Service) -> Manager:
        document = Handover(
            version=1,
            generation="0" * 64,
            product="default",
            store=str(self.store.folder),
            data=str(self.folders.data),
            volumes_key="5a" * 32,
            services=services,
            volumes=VOLUMES,
        )
        host = LinuxHost(
            self.store.folder,
            layers=self.layers,
            volumes=self.volumes,
            units=self.units,
            log=self.lines.append,
        )
        perform = performing(host)

        def all_but_rules(step: Step[object]) -> object:
            if type(step).__name__ in {"MakeBridge", "ApplyRules", "Switch"}:
                self.rules.append(step)  # the packets' own tests do that, in a network of their own
                return None
            return perform(step)

        return Manager(document, Policy(self.folders), all_but_rules)

    def status(self, manager: Manager) -> list[ServiceStatus]:
        return list(manager.status(self.units.show(manager.units)))

    def only(self, manager: Manager) -> ServiceStatus:
        (status,) = self.status(manager)
        return status

    def output(self, service: str) -> str:
        path = self.units.log / f"machineos-{service}.service"
        return path.read_text() if path.exists() else ""

    def wait_output(self, service: str, text: str) -> str:
        wait_for(
            lambda: text in self.output(service),
            during=self.units.processes[f"machineos-{service}.service"],
            what=f"{text!r} in what {service} says",
        )
        return self.output(service)


def shell(script: str, **config: object) -> dict[str, object]:
    return {"Entrypoint": ["/bin/sh", "-c", script], **config}
