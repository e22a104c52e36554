"""hostfs, bootkit and media of a keyset, from Debian's packages to signed images.

A step whose inputs have not changed is not done again; what they are, and where the results are
kept, is in ``workshop``. The cache is shared by all keysets.
"""

from __future__ import annotations

import platform
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

import machineos
from machineos.build.os import (
    bootimage,
    bootkit,
    contents,
    initrd,
    initrdplan,
    microcode,
    modules,
)
from machineos.build.os.workshop import (
    ANCHORS,
    BOOTKIT_TAG,
    HOSTFS_TAG,
    TEST_MARKER,
    VERSION_LABEL,
    Workshop,
    boot_root_name,
    boot_suite,
    bootkit_folder,
    bootkit_key,
    flavour_of,
    hostfs_layout,
    initrd_name,
    modules_name,
    newest_kernel,
    require_variant,
)
from machineos.build.recipe.build import Settings, build
from machineos.build.recipe.config import ImageConfig
from machineos.build.recipe.filesystem import make_layer
from machineos.build.recipe.image import put_image
from machineos.build.recipe.inputs import Input, Inputs
from machineos.build.recipe.inputsfile import keep_inputs
from machineos.build.recipe.recipe import parse_recipe
from machineos.build.recipe.stageplan import LayerMeta
from machineos.core.files import locked, write_atomic
from machineos.core.run import run
from machineos.document.model.hardware import HARDWARE_LABEL
from machineos.host.pack import tools
from machineos.host.pack.caller import own_ids
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.architecture import architecture
from machineos.oci.registry.access import Access

if TYPE_CHECKING:
    from machineos.build.recipe.veritylayer import VerityLayer
    from machineos.oci.model.documents import Descriptor


def build_hostfs(keyset: Path, shop: Workshop) -> Descriptor:
    """Build the root of the appliance and return its image. Raises: see ``build``."""
    _require_variant(keyset, shop.variant)
    context = shop.cache / f"hostfs-context-{shop.variant}"
    shutil.rmtree(context, ignore_errors=True)
    source = _package()
    shutil.copytree(source / "build/os/hostfs", context)
    contents.copy(source, contents.APPLIANCE, context / "machineos")
    recipe = parse_recipe(
        (context / "recipe.yaml").read_bytes(),
        name="hostfs recipe",
        substitutions={"VARIANT": shop.variant, "VERSION": shop.version},
    )
    sink = LayoutRepository(hostfs_layout(keyset, shop.variant), writable=True)
    settings = Settings(
        base=context,
        cache=shop.cache / "build",
        clock=shop.clock,
        epoch=shop.epoch,
        access=Access(proxies=shop.proxies),
        progress=shop.say,
    )
    return build(recipe, sink, settings)[HOSTFS_TAG]


def build_bootkit(anchored: bootkit.Anchored, shop: Workshop) -> Descriptor:
    """Build shim, UKIs and the bootkit image of a keyset, and return the image.

    Raises: ToolError, SignatureError, MissingError, UsageError (passphrase).
    """
    bootkit.require_keys(anchored)
    _require_variant(anchored.keyset.root, shop.variant)
    folder = bootkit_folder(anchored.keyset.root, shop.variant)
    sink = LayoutRepository(folder / "oci", writable=True)
    with locked(shop.cache / "lock", what=f"the cache {shop.cache}", wait=True):
        root = boot_root(shop)
        names = [path.name for path in (root / "usr/lib/modules").iterdir()]
        kernel = newest_kernel(names, root)
        base = initrd_base(root, kernel, shop)
        volume = modules_layer(root, kernel, shop)
        key = _key(anchored, base, volume, shop)
        stamp = folder / "inputs"
        if stamp.is_file() and stamp.read_text() == key:
            shop.say("bootkit: unchanged")
            return sink.resolve(BOOTKIT_TAG)
        work = shop.cache / "bootkit-work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        options = bootimage.Options(shop.policy_version, shop.epoch, shop.banner, shop.tpm_kind)
        updates = microcode.microcode_archive(
            root, shop.hardware.updates, work=work, epoch=shop.epoch
        )
        shop.say(f"bootkit: microcode {shop.hardware.updates}, {len(updates) / 1e6:.1f} MB")
        bootkit.build_images(
            anchored, root, base, folder, modules=volume.root_hash, work=work, options=options,
            microcode=updates, say=shop.say,
        )  # fmt: skip
        bootkit.boot_files_tree(folder, work / "tree")
        shop.say("bootkit: packing boot files")
        layer = make_layer(work / "tree", work / "layer", epoch=shop.epoch)
        config = ImageConfig(architecture=architecture(platform.machine()))
        descriptor = put_image(
            sink,
            (layer, volume),  # in the order of document.rules.images
            config.to_bytes(
                layer.digest, volume.digest, epoch=shop.epoch, created_by="mosb bootkit build"
            ),
            tag=BOOTKIT_TAG,
            annotations={VERSION_LABEL: shop.version, HARDWARE_LABEL: shop.hardware.label},
        )
        made_of = (
            Input("bootkit", "debian", f"{boot_suite(shop.hardware).name} {shop.hardware.label}"),
            Input("bootkit", "kernel", kernel),
            Input("bootkit", "modules", kernel, volume.digest),
        )
        keep_inputs(sink, descriptor.digest, Inputs(made_of))
        shutil.rmtree(work)
        write_atomic(stamp, key.encode())
    return descriptor


def boot_root(shop: Workshop) -> Path:
    """Return the unpacked Debian tree with kernel, shim, stub and the initrd's programs."""
    suite = boot_suite(shop.hardware)
    tree = shop.cache / boot_root_name(suite, shop.epoch)
    if tree.is_dir():
        return tree
    shop.say("bootkit: Debian kernel, shim and tools")
    temporary = shop.cache / "boot-root-new"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    tar = shop.cache / "boot-root.tar"
    proxies = shop.proxies.environment()
    tools.build_root(suite, tar, epoch=shop.epoch, ids=own_ids("the bootkit"), proxies=proxies)
    run(["tar", "-C", temporary, "--numeric-owner", "-xpf", tar], timeout=600.0)
    tar.unlink()
    for name in ("bin", "sbin", "lib", "lib64"):  # a tree that was only unpacked has no links yet
        if not (temporary / name).exists():
            (temporary / name).symlink_to(f"usr/{name}")
    (temporary / "tmp").mkdir(exist_ok=True)
    temporary.rename(tree)
    return tree


def initrd_base(root: Path, kernel: str, shop: Workshop) -> initrdplan.Base:
    """Return the initrd's product-independent part, built when our code or the tree changed."""
    folder = shop.cache / initrd_name(root.name, kernel, shop.epoch, initrd_source(_package()))
    stamp = folder / "base.json"
    if stamp.is_file():
        return msgspec.json.decode(stamp.read_bytes(), type=initrdplan.StoredBase).base(folder)
    shop.say("bootkit: initrd")
    for old in shop.cache.glob(f"initrd-{flavour_of(kernel)}-*"):
        shutil.rmtree(old)
    folder.mkdir(parents=True)
    base = initrd.build_base(
        root, kernel, folder / "initrd.cpio.zst", work=folder, epoch=shop.epoch
    )
    shutil.rmtree(folder / "initrd")
    write_atomic(
        stamp,
        msgspec.json.encode(initrdplan.StoredBase.of(base)),
    )
    return base


def modules_layer(root: Path, kernel: str, shop: Workshop) -> VerityLayer:
    """Return the layer of modules and firmware, packed when the tree or the way of packing changed.

    Raises: ToolError, MissingToolError, SpaceError.
    """
    source = contents.digest(_package(), ("build/os/modules.py", "build/recipe/filesystem.py"))
    folder = shop.cache / modules_name(root.name, kernel, shop.epoch, source)
    stamp, path = folder / "layer.json", folder / "layer"
    if stamp.is_file() and path.is_file():
        return msgspec.json.decode(stamp.read_bytes(), type=LayerMeta).layer(path)
    shop.say("bootkit: packing modules")
    for old in shop.cache.glob(f"modules-{flavour_of(kernel)}-*"):
        shutil.rmtree(old)
    folder.mkdir(parents=True)
    paths = modules.chosen(tools.index_modules(root, kernel))
    firmware = modules.modules_tree(root, kernel, folder / "tree", paths)
    layer = make_layer(folder / "tree", path, epoch=shop.epoch)
    shop.say(
        f"bootkit: {len(paths)} modules, {len(firmware)} files of firmware, "
        f"{path.stat().st_size / 1e6:.1f} MB"
    )
    shutil.rmtree(folder / "tree")
    write_atomic(stamp, msgspec.json.encode(LayerMeta.of(layer)))
    return layer


def initrd_source(package: Path) -> str:
    """Return a digest over the source that the initrd is made of, and made by."""
    return contents.digest(package, ("build/os/initrd.py",), contents.INITRD)


def bootkit_source(package: Path) -> str:
    """Return a digest over the source that a bootkit is made by, from signing to packing."""
    return contents.digest(package, ("build/os/appliance.py",))


def _require_variant(keyset: Path, variant: str) -> None:
    require_variant(variant, for_tests=(keyset / TEST_MARKER).is_file())


def _key(
    anchored: bootkit.Anchored, base: initrdplan.Base, volume: VerityLayer, shop: Workshop
) -> str:
    certificates = [anchored.keyset.key(role).certificate_pem() for role in ANCHORS]
    parts = (base.archive.parent.name, str(volume.digest))
    return bootkit_key(shop, parts, certificates, bootkit_source(_package()))


def _package() -> Path:
    return Path(machineos.__file__).parent
