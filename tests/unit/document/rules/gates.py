"""The gates, each as one function that takes something bad and has to refuse it.

A ``Scene`` is a world of images and a registry. Documents are plain dictionaries here, because a
value that breaks a rule is often one that our types cannot hold.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from fakes.repository import MemoryRegistry
from machineos.boot import facts
from machineos.boot.phases import generation, images
from machineos.boot.steps import ReadFile, ReadImage
from machineos.build.publish.verify import verify_images
from machineos.build.recipe.conversion import Conversion
from machineos.build.recipe.convert import convert_image
from machineos.build.recipe.inspection import Inspector
from machineos.build.recipe.record import Record
from machineos.core.clock import SystemClock
from machineos.core.digest import Digest
from machineos.core.files import read_bounded
from machineos.core.serviceid import ServiceId
from machineos.core.steps import Runner, Talk
from machineos.core.word import DocumentId
from machineos.document.between.bootsettings import Anchors
from machineos.document.between.handover import Layer as Given
from machineos.document.between.handover import Service, parse_handover
from machineos.document.model.install import Mount, Network, Port
from machineos.document.state.system import SYSTEM_FILE, document_files
from machineos.document.verify.images import root_hash_signatures, verify_target
from machineos.document.verify.published import Fetched, fetch_verified
from machineos.errors import VerificationError
from machineos.install import source, stage
from machineos.install.source import Wish
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.atomfs import NEW_ROOT_HASH, Layer
from machineos.oci.model.documents import Descriptor, parse_manifest
from machineos.service.act.manager import performing
from machineos.service.act.rootfs import see_file, see_folder
from machineos.service.act.verity import VerityLayers
from machineos.service.plan import inside, service
from machineos.service.plan.facts import Progress
from machineos.service.plan.host import Inside
from machineos.service.plan.network import Wanted, plan_network
from machineos.state.images.volume import image_volume
from machineos.trust.verify.chain import DeviceIdentity
from unit.document.conftest import NOW, PRODUCT, World
from unit.install.conftest import PLACE, Watched, make_machine
from unit.service.bed import POLICY, Bed

Json = dict[str, Any]
Change = Callable[[Json], object]


@dataclass(frozen=True)
class MemoryWorld(World):
    """The same with its registry in memory: every rule is pushed through every gate."""

    memory: MemoryRegistry = field(default_factory=MemoryRegistry)

    @property
    def registry(self) -> MemoryRegistry:  # type: ignore[override] # as good as a folder
        return self.memory


@dataclass
class Scene:
    """Where a bad thing is tried; ``options`` are for the publisher."""

    world: MemoryWorld
    folder: Path
    options: Json = field(default_factory=dict)

    @property
    def images(self) -> LayoutRepository:
        """The images that manifests are made of."""
        return LayoutRepository(self.world.images, writable=True)

    def document(self) -> Json:
        """Return a good install document for the images that are there."""

        def target(name: str, kind: str, network: Json, tag: str = "") -> Json:
            found = self.images.resolve(tag or name)
            return {
                "service_name": name,
                "version": "1",
                "service_type": kind,
                "network": network,
                "nsgroup": "zot" if kind == "container" else "",
                "digest": str(found.digest),
                "size": found.size,
            }

        zot = target(
            "zot", "container", {"type": "simple", "ports": [{"host": 80, "container": 1}]}
        )
        zot["storage"] = [{"dest": "/data", "label": "data"}]
        other = target("other", "container", {"type": "simple"}, "zot")
        host = {"type": "host"}
        return {
            "version": 1,
            "product": "default",
            "update_type": "complete",
            "storage": [{"label": "data", "persistent": True, "nsgroup": "zot", "size": 1}],
            "targets": [
                zot,
                other,
                target("hostfs", "hostfs", host),
                target("bootkit", "fs-only", host),
            ],
        }

    def source(self, document: Json) -> str:
        """Return the manifest.yaml that says what a document says. (JSON is YAML.)"""
        good = self.document()
        manifest = copy.deepcopy(document)
        known = {target["service_name"]: target for target in good["targets"]}
        for target in manifest["targets"]:
            name = target.get("service_name")
            tag = name if name in {"hostfs", "bootkit"} else "zot"
            target.setdefault("source", f"oci:{self.world.images}:{tag}")
            for key in ("digest", "size"):
                if target.get(key) == known.get(name, known["zot"])[key]:
                    del target[key]
        return json.dumps(manifest)

    def sign(self, document: Json) -> bytes:
        """Sign a document, whatever is in it, with all images in the registry."""
        for tag in ("zot", "hostfs", "bootkit"):
            self.world.sign_image(self.images, self.images.resolve(tag))
        data = json.dumps(document).encode()
        self.world.sign(data)
        return data


# -- documents


def publish(scene: Scene, document: Json) -> None:
    """The publisher reads a manifest.yaml that says the same, and all images that it names."""
    scene.world.publish(scene.source(document), **scene.options)


def fetch(scene: Scene) -> Fetched:
    """Return the manifest as every reader gets it."""
    return fetch_verified(
        scene.world.registry.repository("machine/install"),
        "1.0.0",
        ca_pem=scene.world.authority.pem,
        at=NOW,
        product=PRODUCT,
    )


def verify(scene: Scene, document: Json) -> None:
    """``mosb manifest verify``."""
    scene.sign(document)
    verify_signed(scene)


def verify_signed(scene: Scene) -> None:
    """The same of what is in the registry already."""
    verify_images(scene.world.registry, fetch(scene).verified, deep=None)


def inspector(scene: Scene) -> Inspector:
    """Return who looks into images."""
    return Inspector(scene.folder, Record(scene.folder / "proved"))


def verify_deeply(scene: Scene) -> None:
    """``mosb manifest verify --deep`` of what is in the registry already."""
    verify_images(scene.world.registry, fetch(scene).verified, deep=inspector(scene))


def install(scene: Scene, document: Json) -> None:
    """The installer, before it touches a disk."""
    scene.sign(document)
    install_signed(scene)


def install_signed(scene: Scene) -> None:
    """The same of what is in the registry already."""
    machine = make_machine(scene.world.registry, scene.world.authority)
    untouched = machine.kept.snapshot()
    try:
        Watched(machine.boot()).run(Wish(PLACE), (*source.PARTS, *stage.PARTS))
    finally:
        assert machine.kept.snapshot() == untouched


def store_config(scene: Scene, *documents: bytes, change: Change = lambda _system: None) -> Path:
    """Write the configuration of a machine that runs ``documents``."""
    folder = scene.folder / "config"
    folder.mkdir()
    signer = scene.world.authority.publisher
    names = [DocumentId.of(data) for data in documents]
    for name, data in zip(names, documents, strict=True):
        contents = (data, signer.sign(data), signer.certificate_pem)
        for file, content in zip(document_files(name), contents, strict=True):
            (folder / file).write_bytes(content)
    system: Json = {
        "version": 1,
        "manifests": [str(name) for name in names],
        "uidmaps": [{"idmap-name": "zot", "hostid": 100000}],
    }
    change(system)
    (folder / SYSTEM_FILE).write_text(json.dumps(system))
    return folder


def boot(scene: Scene, document: Json) -> None:
    """The initrd, of a machine on which it was installed."""
    boot_from(scene, store_config(scene, scene.sign(document)))


def boot_from(scene: Scene, config: Path) -> None:
    """The initrd, from this configuration."""
    given: dict[str, object] = {
        facts.ANCHORS: Anchors(scene.world.authority.pem, *(b"",) * 7),
        facts.IDENTITY: DeviceIdentity(PRODUCT, "1", b"", Digest.of(b"")),
        facts.STORE: Path("/store"),
    }
    known = facts.Facts(given)
    for phase in (generation.PHASE, images.PHASE):
        known = known.merged(answered(scene, config, phase.talk(known)))


def answered(scene: Scene, config: Path, talk: Talk[facts.Facts]) -> facts.Facts:
    """Take the steps of a phase of the boot on a folder and a registry."""
    answer: object = None
    while True:
        try:
            step = talk.send(answer)
        except StopIteration as end:
            return cast("facts.Facts", end.value)
        answer = None
        if isinstance(step, ReadFile):
            answer = read_bounded(config / step.path.name, step.limit)
        elif isinstance(step, ReadImage):
            store = scene.world.registry.repository("mos")
            manifest = verify_target(store, step.target)
            signatures = root_hash_signatures(store, step.target, manifest, step.publisher)
            answer = manifest, signatures


def boot_signed(scene: Scene) -> None:
    """The initrd, of a machine that runs what is in the registry already."""
    boot_from(scene, store_config(scene, fetch(scene).verified.data))


def mosd(_scene: Scene, document: Json) -> None:
    """The service manager plans the networks of the containers."""
    services = []
    for target in document["targets"]:
        if target["service_type"] == "container":
            values = dict(target["network"])
            ports = tuple(Port(**port) for port in values.pop("ports", ()))
            network = Network(ports=ports, **values)
            name = ServiceId(target["service_name"])
            services.append(Wanted(name, network, target["nsgroup"]))
    # It raises nothing: each service is refused alone, and the others run.
    for refusal in plan_network(services).refused:
        raise VerificationError(refusal.why, rule=refusal.rule)


# -- images


def publish_image(scene: Scene) -> None:
    """The publisher, of an image that is bad by itself."""
    publish(scene, scene.document())


def publish_carelessly(scene: Scene) -> None:
    """Bring a bad image into the registry, signed."""
    scene.sign(scene.document())


def mosd_image(scene: Scene, **changes: str) -> None:
    """The service manager reads the image that it was handed."""
    publish_carelessly(scene)
    store = scene.world.registry.repository("mos")
    found = scene.images.resolve("zot")
    manifest = parse_manifest(store.manifest(str(found.digest))[1], name="zot")
    layer: Descriptor = manifest.layers[0]
    values = {
        "config": str(manifest.config.digest),
        "digest": str(layer.digest),
        "root_hash": layer.annotations.get(NEW_ROOT_HASH, ""),
        **changes,
    }
    item = Service(
        name="zot",
        version="1",
        type="container",
        image=str(found.digest),
        config=values["config"],
        layer=Given(values["digest"], values["root_hash"], blob="b", signature="s"),
        network=Network(type="none"),
    )
    bed = Bed()
    for digest in (found.digest, manifest.config.digest):
        bed.host.blobs[digest] = store.blobs[digest]
    runner: Runner[Progress] = Runner(performing(bed.host))
    runner.run(service.PHASES[:2], Progress(item, bed.handover(item), POLICY))


def layer_file(scene: Scene) -> tuple[Layer, Path]:
    """Return the layer of the first image as it is in a store, and the file with its bytes."""
    store = scene.world.registry.repository("mos")
    found = scene.images.resolve("zot")
    manifest = parse_manifest(store.manifest(str(found.digest))[1], name="zot")
    layer = Layer.of(manifest.layers[0])
    blob = scene.folder / "blob"
    blob.write_bytes(store.blobs[layer.digest])
    return layer, blob


def boot_layer(scene: Scene) -> None:
    """The initrd looks for the hash tree of an image that it is to mount."""
    layer, blob = layer_file(scene)
    image_volume(blob, layer, signature=b"s")


def mosd_layer(scene: Scene) -> None:
    """The service manager opens the layer of a service; a good one would need a kernel."""
    layer, blob = layer_file(scene)
    signature = scene.folder / "signature"
    signature.write_bytes(b"s")
    VerityLayers().open(layer, blob=blob, signature=signature)


def mosd_inside(scene: Scene, mounts: tuple[Mount, ...] = (), user: str = "") -> None:
    """The service manager looks into a mounted image; the folder ``root`` stands for it."""
    root = scene.folder / "root"
    looked = Inside(
        tuple((path, see_folder(root, path)) for path in inside.folders_to_see(mounts)),
        tuple((path, see_file(root, path)) for path in inside.FILES),
    )
    inside.judge(looked, mounts=mounts, user=user, image="zot")


def convert(scene: Scene) -> None:
    """``mosb image convert``."""
    convert_image(
        scene.images,
        "zot",
        LayoutRepository(scene.folder / "converted", writable=True),
        Conversion(scene.folder, clock=SystemClock(), epoch=0),
    )


# -- what only a machine has


def boot_system(scene: Scene, change: Change) -> None:
    """The initrd, with another system file."""
    data = scene.sign(scene.document())
    boot_from(scene, store_config(scene, data, change=change))


def mosd_handover(_scene: Scene, change: Change) -> None:
    """The service manager, of a hand-over with a second service that is bad."""

    def service(name: str) -> Json:
        digest = "sha256:" + "a" * 64
        return {
            "name": name,
            "version": "1",
            "type": "container",
            "image": digest,
            "config": digest,
            "layer": {"digest": digest, "root_hash": "b" * 64, "blob": "b", "signature": "s"},
            "network": {"type": "none"},
            "nsgroup": "zot",
            "hostid": 100000,
        }

    document = {
        "version": 1,
        "generation": "g",
        "product": "p",
        "store": "/store",
        "data": "/data",
        "volumes_key": "5a" * 32,
        "services": [service("first"), service("second")],
    }
    change(document)
    parse_handover(json.dumps(document).encode())
