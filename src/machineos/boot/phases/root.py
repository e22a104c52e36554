"""Mount hostfs and bootkit under dm-verity, and show the bootkit's kernel modules in the root.

That both are there was seen to by who verified the documents (``generation``, ``live``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.boot.facts import (
    BOOTS,
    DRIVERS,
    ENFORCING,
    IMAGES,
    ROOT,
    RUN,
    SCRATCH,
    SETTINGS,
    STORE,
    SYSROOT,
    Facts,
    Phase,
)
from machineos.boot.steps import Bind, IsFolder, LoadModules, MakeFolder, MountImage
from machineos.core.steps import Talk, ask
from machineos.errors import BootError, MachineOSError
from machineos.oci.model.atomfs import parse_layer_type

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.boot.facts import Image

BOOTKIT = RUN / "bootkit"
MODULES = "usr/lib/modules"


def blob_path(store: Path, image: Image) -> Path:
    """Return where the store has the image's layer."""
    return store / "blobs" / image.layer.digest.algorithm / image.layer.digest.hex


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        settings, store = facts[SETTINGS], facts[STORE]
        by_name = {image.target.service_name: image for image in facts[IMAGES]}
        hostfs, bootkit = by_name["hostfs"], by_name["bootkit"]
        for image in (hostfs, bootkit):
            kind = parse_layer_type(image.layer.media_type)
            names = settings.filesystems.get(kind.filesystem, ()) if kind is not None else ()
            yield from ask(LoadModules(names))
        yield from _mount(store, hostfs, SYSROOT)
        yield from ask(MakeFolder(BOOTKIT))
        yield from _mount(store, bootkit, BOOTKIT)
        if not (yield from ask(IsFolder(BOOTKIT / MODULES / settings.kernel))):
            raise BootError(f"the bootkit has no modules for this kernel, {settings.kernel}")
        yield from ask(Bind(BOOTKIT / MODULES, SYSROOT / MODULES))
        return Facts()


def _mount(store: Path, image: Image, target: Path) -> Talk[None]:
    try:
        step = MountImage(blob_path(store, image), image.layer, image.signature, target)
        yield from ask(step)
    except MachineOSError as error:
        raise error.about(image.target.service_name) from error


PHASE = _Phase(
    "root",
    modes=BOOTS,
    needs=frozenset({SETTINGS, SCRATCH, DRIVERS, STORE, IMAGES, ENFORCING}),
    gives=frozenset({ROOT}),
)
