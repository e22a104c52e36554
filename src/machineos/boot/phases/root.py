"""Mount hostfs and the bootkit's modules and firmware under dm-verity, and show them in the root.

That both are there was seen to by who verified the documents (``generation``, ``live``). Which
volume of modules the kernel takes is in its policy, made with this very image: another is refused
here already, with a reason.
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
    TRUSTED,
    Facts,
    Phase,
)
from machineos.boot.steps import Bind, IsFolder, LoadModules, MakeFolder, MountImage
from machineos.core.steps import Talk, ask
from machineos.document.rules.bootable import SHOWN, Part, require_root_part
from machineos.errors import BootError, MachineOSError
from machineos.oci.model.atomfs import parse_layer_type

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.boot.facts import Image
    from machineos.oci.model.atomfs import Layer

MODULES = RUN / "modules"


def blob_path(store: Path, layer: Layer) -> Path:
    """Return where the store has a layer."""
    return store / "blobs" / layer.digest.algorithm / layer.digest.hex


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        settings, store = facts[SETTINGS], facts[STORE]
        by_name = {image.target.service_name: image for image in facts[IMAGES]}
        hostfs, bootkit = by_name["hostfs"], by_name["bootkit"]
        for image in (hostfs, bootkit):
            kind = parse_layer_type(image.layer.media_type)
            names = settings.filesystems.get(kind.filesystem, ()) if kind is not None else ()
            yield from ask(LoadModules(names))
        _require_volume(bootkit, settings.modules_volume)
        yield from _mount(store, hostfs, SYSROOT)
        yield from ask(MakeFolder(MODULES))
        yield from _mount(store, bootkit, MODULES)
        for name in SHOWN:
            inside = name.removeprefix("/")
            there = yield from ask(IsFolder(SYSROOT / inside))
            require_root_part(Part("folder", name), there=there)
            yield from ask(Bind(MODULES / inside, SYSROOT / inside))
        return Facts()


def _require_volume(bootkit: Image, modules: str) -> None:
    if bootkit.layer.root_hash != modules:
        raise BootError(
            "the bootkit's modules are not those of this kernel image: root hash "
            f"{bootkit.layer.root_hash}, not {modules}",
            hint="a kernel image and its modules are built together by `mosb bootkit build`",
        )


def _mount(store: Path, image: Image, target: Path) -> Talk[None]:
    try:
        step = MountImage(blob_path(store, image.layer), image.layer, image.signature, target)
        yield from ask(step)
    except MachineOSError as error:
        raise error.about(image.target.service_name) from error


PHASE = _Phase(
    "root",
    modes=BOOTS,
    needs=frozenset({SETTINGS, SCRATCH, DRIVERS, STORE, IMAGES, ENFORCING, TRUSTED}),
    gives=frozenset({ROOT}),
)
