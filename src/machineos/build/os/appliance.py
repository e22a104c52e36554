"""hostfs, bootkit and media of a keyset, from Debian's packages to signed images.

Owns what is kept where: in ``<keyset>/hostfs/oci``, ``<keyset>/bootkit`` and ``<keyset>/artifacts``
(the predecessor's names), and in a cache that any keyset shares. A step whose inputs have not
changed is not done again.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

import machineos
from machineos.build.os import bootkit, contents, initrd
from machineos.build.recipe.build import DEFAULT_EPOCH, Settings, build
from machineos.build.recipe.config import ImageConfig, architecture, put_image
from machineos.build.recipe.filesystem import make_layer
from machineos.build.recipe.recipe import parse_recipe
from machineos.core.files import locked, write_atomic
from machineos.core.run import run
from machineos.errors import MissingError, PolicyError
from machineos.host.pack import mmdebstrap
from machineos.oci.layout.folder import LayoutRepository

if TYPE_CHECKING:
    from collections.abc import Callable

    from machineos.oci.model.documents import Descriptor

HOSTFS_TAG = "hostfs"
BOOTKIT_TAG = "bootkit-squashfs"
ORDINARY = "ordinary"
# With a root shell on the console, for tests. No command builds it, and only a keyset that says so
# itself can sign it: a machine of a product must never unseal for it.
DEBUG = "debug-console"
TEST_MARKER = "FOR-TESTS-ONLY"
VERSION_LABEL = "org.opencontainers.image.version"
_SUITE = mmdebstrap.Suite(
    name="trixie",
    variant="extract",
    packages=(
        "cryptsetup-bin", "linux-image-cloud-amd64", "python3-cryptography", "python3-msgspec",
        "shim-unsigned", "systemd-boot-efi",
    ),
)  # fmt: skip
_BANNER = "DEBUG VARIANT, FOR TESTS ONLY: root shell on the console"


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where and how to build; ``cache`` outlives a build, ``variant`` is ORDINARY or DEBUG."""

    cache: Path
    epoch: int = DEFAULT_EPOCH
    variant: str = ORDINARY
    version: str = machineos.__version__
    policy_version: str = "0001"
    say: Callable[[str], None] = field(default=lambda _text: None)


def hostfs_layout(keyset: Path, variant: str) -> Path:
    """Return the folder of the OCI layout with the hostfs; variants never share the name."""
    return keyset / ("hostfs" if variant == ORDINARY else f"hostfs-{variant}") / "oci"


def bootkit_folder(keyset: Path, variant: str) -> Path:
    """Return the folder of shim, UKIs and the bootkit's OCI layout."""
    return keyset / ("bootkit" if variant == ORDINARY else f"bootkit-{variant}")


def media_folder(keyset: Path, variant: str) -> Path:
    """Return the folder of the media that were built last."""
    return keyset / ("artifacts" if variant == ORDINARY else f"artifacts-{variant}")


def check_variant(keyset: Path, variant: str) -> None:
    """Refuse the debug variant for any keyset that is not marked as one for tests.

    Raises: PolicyError.
    """
    if variant != ORDINARY and not (keyset / TEST_MARKER).is_file():
        raise PolicyError(f"the {variant} variant is only for keysets marked {TEST_MARKER}")


def build_hostfs(keyset: Path, shop: Workshop) -> Descriptor:
    """Build the root of the appliance and return its image. Raises: see ``build``."""
    check_variant(keyset, shop.variant)
    context = shop.cache / f"hostfs-context-{shop.variant}"
    shutil.rmtree(context, ignore_errors=True)
    source = Path(machineos.__file__).parent
    shutil.copytree(source / "build/os/hostfs", context)
    contents.copy(source, contents.APPLIANCE, context / "machineos")
    recipe = parse_recipe(
        (context / "recipe.yaml").read_bytes(),
        name="hostfs recipe",
        substitutions={"VARIANT": shop.variant, "VERSION": shop.version},
    )
    sink = LayoutRepository(hostfs_layout(keyset, shop.variant), writable=True)
    settings = Settings(
        base=context, cache=shop.cache / "build", epoch=shop.epoch, progress=shop.say
    )
    return build(recipe, sink, settings)[HOSTFS_TAG]


def build_bootkit(anchored: bootkit.Anchored, shop: Workshop) -> Descriptor:
    """Build shim, UKIs and the bootkit image of a keyset, and return the image.

    Raises: ToolError, SignatureError, MissingError, UsageError (passphrase).
    """
    check_variant(anchored.keyset.root, shop.variant)
    folder = bootkit_folder(anchored.keyset.root, shop.variant)
    sink = LayoutRepository(folder / "oci", writable=True)
    with locked(shop.cache / "lock", what=f"the cache {shop.cache}", wait=True):
        root = boot_root(shop)
        kernel = _kernel(root)
        base = initrd_base(root, kernel, shop)
        key = _key(anchored, base, shop)
        stamp = folder / "inputs"
        if stamp.is_file() and stamp.read_text() == key:
            shop.say("bootkit: unchanged")
            return sink.resolve(BOOTKIT_TAG)
        work = shop.cache / "bootkit-work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        options = bootkit.Options(
            shop.policy_version, shop.epoch, "" if shop.variant == ORDINARY else _BANNER
        )
        bootkit.build_images(anchored, root, base, folder, work=work, options=options, say=shop.say)
        bootkit.bootkit_tree(root, kernel, folder, work / "tree")
        shop.say("bootkit: packing squashfs")
        layer = make_layer(work / "tree", work / "layer", epoch=shop.epoch)
        config = ImageConfig(architecture=architecture(platform.machine()))
        descriptor = put_image(
            sink,
            layer,
            config.to_bytes(layer.digest, epoch=shop.epoch, created_by="mosb bootkit build"),
            tag=BOOTKIT_TAG,
            annotations={VERSION_LABEL: shop.version},
        )
        shutil.rmtree(work)
        write_atomic(stamp, key.encode())
    return descriptor


def boot_root(shop: Workshop) -> Path:
    """Return the unpacked Debian tree with kernel, shim, stub and the initrd's programs."""
    identity = hashlib.sha256(repr((_SUITE, shop.epoch)).encode()).hexdigest()[:16]
    tree = shop.cache / f"boot-root-{identity}"
    if tree.is_dir():
        return tree
    shop.say("bootkit: Debian kernel, shim and tools")
    temporary = shop.cache / "boot-root-new"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    tar = shop.cache / "boot-root.tar"
    mmdebstrap.build(_SUITE, tar, epoch=shop.epoch, temporary=shop.cache)
    run(["tar", "-C", temporary, "--numeric-owner", "-xpf", tar], timeout=600.0)
    tar.unlink()
    for name in ("bin", "sbin", "lib", "lib64"):  # a tree that was only unpacked has no links yet
        if not (temporary / name).exists():
            (temporary / name).symlink_to(f"usr/{name}")
    (temporary / "tmp").mkdir(exist_ok=True)
    temporary.rename(tree)
    return tree


def initrd_base(root: Path, kernel: str, shop: Workshop) -> initrd.Base:
    """Return the initrd's product-independent part, built when our code or the tree changed."""
    key = hashlib.sha256(f"{root.name} {kernel} {shop.epoch} {source_digest()}".encode())
    folder = shop.cache / f"initrd-{key.hexdigest()[:16]}"
    stamp = folder / "base.json"
    if stamp.is_file():
        return msgspec.json.decode(stamp.read_bytes(), type=_StoredBase).base(folder)
    shop.say("bootkit: initrd")
    for old in shop.cache.glob("initrd-*"):
        shutil.rmtree(old)
    folder.mkdir(parents=True)
    base = initrd.build_base(
        root, kernel, folder / "initrd.cpio.zst", work=folder, epoch=shop.epoch
    )
    shutil.rmtree(folder / "initrd")
    write_atomic(
        stamp,
        msgspec.json.encode(_StoredBase(base.kernel, base.modules, base.drivers, base.filesystems)),
    )
    return base


def source_digest() -> str:
    """Return a digest over the source that the initrd is made of, and made by."""
    package = Path(machineos.__file__).parent
    return contents.digest(package, (*contents.INITRD, "build/os/initrd.py"))


class _StoredBase(msgspec.Struct, frozen=True):
    kernel: str
    modules: tuple[str, ...]
    drivers: tuple[tuple[str, tuple[str, ...]], ...]
    filesystems: dict[str, tuple[str, ...]]

    def base(self, folder: Path) -> initrd.Base:
        """Return the base that is stored in ``folder``."""
        return initrd.Base(
            folder / "initrd.cpio.zst", self.kernel, self.modules, self.drivers, self.filesystems
        )


def _kernel(root: Path) -> str:
    names = sorted(path.name for path in (root / "usr/lib/modules").iterdir())
    if not names:
        raise MissingError(f"{root} holds no kernel")
    return names[-1]


def _key(anchored: bootkit.Anchored, base: initrd.Base, shop: Workshop) -> str:
    certificates = [
        anchored.keyset.key(role).certificate_pem()
        for role in ("manifest-ca", "sudi-ca", "uefi-pk", "uefi-kek", "uefi-db", "uki-production",
                     "tpmpol-luks", "tpmpol-admin")
    ]  # fmt: skip
    source = Path(bootkit.__file__)
    parts = (
        base.archive.parent.name, shop.policy_version, shop.version, shop.variant, shop.epoch,
        [hashlib.sha256(pem).hexdigest() for pem in certificates],
        [hashlib.sha256(source.with_name(name).read_bytes()).hexdigest()
         for name in ("bootkit.py", "uki.py", "appliance.py")],
    )  # fmt: skip
    return hashlib.sha256(repr(parts).encode()).hexdigest()
