"""Managers on a machine in memory: images, services, and a hand-over, in a few words each."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from contracts.place import FOLDER
from fakes.service import MemoryHost
from fakes.tree import Tree
from machineos.core.digest import Digest
from machineos.document.between.handover import Handover, Layer, Service, Volume
from machineos.document.model.install import Network
from machineos.oci.model.atomfs import OLD_ROOT_HASH
from machineos.service.act.manager import Manager, performing
from machineos.service.plan.facts import Policy
from machineos.service.plan.model import Folders

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from machineos.core.steps import Step
    from machineos.document.between.status import ServiceStatus

FOLDERS = Folders(
    Path("/run/machineos"), Path("/run/systemd/system"), Path("/data"), Path("/dev/mapper")
)
POLICY = Policy(FOLDERS, resolv_conf=Path("/run/resolv.conf"))
NONE = Network(type="none")
TREE: Tree = {
    "/proc": FOLDER,
    "/sys": FOLDER,
    "/dev": FOLDER,
    "/tmp": FOLDER,
    "/data": FOLDER,
    "/etc/passwd": b"root:x:0:0:r:/root:/bin/sh\napp:x:1000:1001:a:/data:/bin/sh\n",
    "/etc/group": b"root:x:0:\napp:x:1001:\nweb:x:33:\n",
    "/etc/resolv.conf": b"",
}
VOLUMES = (
    Volume("blobs", persistent=True, size=30),
    Volume("a-very-long-label-of-a-volume", persistent=True, size=8),
    Volume("memory", persistent=False, size=5),
)
Built = tuple[str, str, Layer]
TYPE = "application/vnd.stacker.image.layer.squashfs+zstd+verity"


def service_of(name: str, built: Built, **changes: object) -> Service:
    """Return a container as the initrd hands it over, whose image was built."""
    image, config, layer = built
    base = Service(
        name=name,
        version="1.0",
        type="container",
        image=image,
        config=config,
        layer=layer,
        network=NONE,
        nsgroup="web",
        hostid=165536,
    )
    return msgspec.structs.replace(base, **changes)


@dataclass
class Bed:
    """One machine, and what is put on it."""

    host: MemoryHost = field(default_factory=MemoryHost)
    policy: Policy = POLICY
    volumes: tuple[Volume, ...] = VOLUMES

    def put(self, data: bytes) -> Digest:
        digest = Digest.of(data)
        self.host.blobs[digest] = data
        return digest

    def image(self, config: Mapping[str, object] | None = None, tree: Tree | None = None) -> Built:
        """Put an image into the store: digest of its manifest and configuration, and its layer."""
        config = config if config is not None else {"Entrypoint": ["/bin/web"]}
        tree = tree if tree is not None else TREE
        layer = Digest.of(repr(sorted(tree.items())).encode())
        self.host.trees[layer.hex] = tree
        described = self.put(json.dumps({"config": config}).encode())
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", described, 9),
            "layers": [
                {**descriptor(TYPE, layer, 4096), "annotations": {OLD_ROOT_HASH: layer.hex}}
            ],
        }
        image = self.put(json.dumps(manifest).encode())
        signed = Layer(str(layer), layer.hex, f"blobs/{layer.hex}", f"signatures/{layer.hex}.p7s")
        return (str(image), str(described), signed)

    def service(self, name: str, built: Built | None = None, **changes: object) -> Service:
        return service_of(name, built or self.image(), **changes)

    def handover(self, *services: Service) -> Handover:
        return Handover(
            version=1,
            generation="0" * 64,
            product="default",
            store="/store",
            data="/data",
            volumes_key="5a" * 32,
            services=services,
            volumes=self.volumes,
        )

    def manager(
        self,
        *services: Service,
        perform: Callable[[Step[object]], object] | None = None,
        watch: Callable[[str], None] = lambda _point: None,
    ) -> Manager:
        document = self.handover(*services)
        return Manager(document, self.policy, perform or performing(self.host), watch=watch)

    def run(self, *services: Service) -> Manager:
        """Reconcile with a new manager."""
        manager = self.manager(*services)
        manager.reconcile()
        return manager

    def settled(self, *services: Service) -> Manager:
        """Reconcile, and do what waits for it."""
        manager = self.run(*services)
        manager.settle()
        return manager

    def status(self, manager: Manager) -> dict[str, ServiceStatus]:
        states = {state.name: state for state in self.host.show_units(manager.units)}
        return {one.name: one for one in manager.status(states)}


def descriptor(media_type: str, digest: Digest, size: int) -> dict[str, object]:
    """Return a descriptor as JSON."""
    return {"mediaType": media_type, "digest": str(digest), "size": size}
