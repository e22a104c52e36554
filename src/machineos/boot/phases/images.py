"""Check the image of every target, and take its publisher's signature of the root hash.

What is in a layer is left to the kernel, and of services to mosd: a damaged service must not stop
the machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.boot.facts import BOOTS, IMAGES, SOURCES, STORE, Facts, Image, Phase
from machineos.boot.steps import ReadImage
from machineos.core.steps import Talk, ask
from machineos.document.rules.images import BOOT_FILES, check_image
from machineos.document.verify.images import image_name, require_signatures
from machineos.oci.model.atomfs import Layer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from machineos.core.digest import Digest
    from machineos.document.product.install import Target
    from machineos.oci.model.documents import Manifest


def choose_layer(target: Target, manifest: Manifest, signatures: Mapping[Digest, bytes]) -> Image:
    """Return the image with the layer that a machine mounts: its only one, or a bootkit's modules.

    Raises: VerificationError, SignatureError.
    """
    name = image_name(target)
    check_image(manifest, name, target.service_name)
    require_signatures(manifest, signatures, name)
    found = [Layer.of(layer) for layer in manifest.layers]
    layer = found[-1]
    files = found[BOOT_FILES] if len(found) > 1 else None
    return Image(
        target,
        layer,
        manifest.config.digest,
        signatures[layer.digest],
        (files, signatures[files.digest]) if files is not None else None,
    )


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        images = []
        for source in facts[SOURCES]:
            step = ReadImage(facts[STORE], source.target, source.publisher)
            manifest, signatures = yield from ask(step)
            images.append(choose_layer(source.target, manifest, signatures))
        return Facts().plus(IMAGES, tuple(images))


PHASE = _Phase("images", modes=BOOTS, needs=frozenset({SOURCES, STORE}), gives=frozenset({IMAGES}))
