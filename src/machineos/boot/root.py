"""From the open configuration to a mounted, verified root."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from machineos.core.files import read_bounded, safe_join
from machineos.document.between import handover
from machineos.document.state import system
from machineos.document.verify import images as targets
from machineos.errors import BootError, MachineOSError, SignatureError, VerificationError
from machineos.host.kernel.mount import bind
from machineos.oci.model.atomfs import parse_layer_type, root_hash_of
from machineos.state.images.volume import image_volume, mount_image

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

    from machineos.document.product.install import Target
    from machineos.document.state.system import System
    from machineos.oci.layout.folder import LayoutRepository
    from machineos.oci.model.documents import Descriptor
    from machineos.trust.verify.chain import Publisher

RUN = "run/machineos"


@dataclass(frozen=True, slots=True)
class Generation:
    """What is going to run: the merged system, its id ranges, and who signed each document."""

    system: System
    idmaps: dict[str, int]
    publishers: dict[str, Publisher]

    def images(self, store: LayoutRepository) -> tuple[Image, ...]:
        """Return the image of every target, each by the publisher of its own document."""
        return tuple(
            find_image(store, entry.target, self.publishers[entry.source])
            for entry in self.system.targets
        )


@dataclass(frozen=True, slots=True)
class Image:
    """The verified image of one target."""

    target: Target
    layer: Descriptor
    config: Descriptor
    signature: bytes

    @property
    def filesystem(self) -> str:
        """The type of file system in the layer, as mount(2) calls it."""
        kind = parse_layer_type(self.layer.media_type)
        return kind.filesystem if kind is not None else ""


def load_generation(config: Path, *, ca_pem: bytes, product: UUID) -> Generation:
    """Read the system file of ``config`` and verify every document that it names, again.

    Raises: MissingError, DocumentError, SignatureError, PolicyError.
    """

    def read(name: str, limit: int) -> bytes:
        return read_bounded(safe_join(config, name), limit)

    stored = system.parse_system(read(system.SYSTEM_FILE, system.MAX_SYSTEM))
    verified = system.load_verified(read, stored, ca_pem=ca_pem, at=None, product=product)
    return Generation(
        system.merge(verified),
        stored.idmaps,
        {document.sha256: document.publisher for document in verified},
    )


def find_image(store: LayoutRepository, target: Target, publisher: Publisher) -> Image:
    """Return the image of ``target`` out of the store, checked by digest.

    ``publisher`` is who signed the manifest, and so the root hashes.

    Raises: MissingError, VerificationError, SignatureError.
    """
    manifest = targets.verify_target(store, target)
    if len(manifest.layers) != 1:
        raise BootError(f"the image of {target.service_name} has {len(manifest.layers)} layers")
    layer = manifest.layers[0]
    signatures = targets.root_hash_signatures(store, target, manifest, publisher)
    if layer.digest not in signatures:
        raise SignatureError(
            f"the image of {target.service_name}: nobody signed the root hash of {layer.digest}"
        )
    return Image(target, layer, manifest.config, signatures[layer.digest])


def mount_target(store: LayoutRepository, image: Image, target: Path) -> None:
    """Mount the image at ``target``. Raises: VerificationError."""
    target.mkdir(parents=True, exist_ok=True)
    blob = store.blob_path(image.layer.digest)
    try:
        mount_image(image_volume(blob, image.layer, signature=image.signature), target)
    except MachineOSError as error:
        raise VerificationError(f"{image.target.service_name}: {error.message}") from error


def signature_file(image: Image, run: Path) -> Path:
    """Return where mosd finds the signature of the image's root hash.

    What is in the layer itself is left to mosd: a damaged service must not stop the machine.
    """
    return run / "signatures" / f"{image.layer.digest.hex}.p7s"


def add_modules(bootkit: Path, root: Path, kernel: str) -> None:
    """Show the kernel modules of the bootkit in the root, where the kernel's helpers look."""
    source = bootkit / "usr/lib/modules"
    if not (source / kernel).is_dir():
        raise BootError(f"the bootkit has no modules for this kernel, {kernel}")
    bind(source, root / "usr/lib/modules", read_only=True)


@dataclass(frozen=True, slots=True)
class Data:
    """Where the volumes of services are: the partition, and the folder to mount them in."""

    device: Path
    folder: Path


def make_handover(
    generation: Generation, images: tuple[Image, ...], *, store: Path, data: Data, run: Path
) -> handover.Handover:
    """Return the document for mosd: every target that is neither hostfs nor bootkit."""
    services = []
    for image in images:
        target = image.target
        if target.service_type == "hostfs" or target.service_name == "bootkit":
            continue
        services.append(
            handover.Service(
                name=target.service_name,
                version=target.version,
                type=target.service_type,
                image=target.digest,
                config=str(image.config.digest),
                layer=handover.Layer(
                    digest=str(image.layer.digest),
                    root_hash=root_hash_of(image.layer),
                    blob=str(
                        store / "blobs" / image.layer.digest.algorithm / image.layer.digest.hex
                    ),
                    signature=str(signature_file(image, run)),
                ),
                network=target.network,
                nsgroup=target.nsgroup,
                hostid=generation.idmaps.get(target.nsgroup, 0),
                storage=target.storage or (),
            )
        )
    return handover.Handover(
        version=handover.VERSION,
        generation=generation.system.manifests[-1],
        product=generation.system.product,
        store=str(store),
        data=str(data.folder),
        data_device=str(data.device),
        services=tuple(services),
        volumes=tuple(
            handover.Volume(item.storage.label, item.storage.persistent, item.storage.size)
            for item in generation.system.storage
        ),
    )
