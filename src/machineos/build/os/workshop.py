"""What hostfs and bootkit are built of and where they are kept: names and keys only.

In ``<keyset>/hostfs/oci``, ``<keyset>/bootkit`` and ``<keyset>/artifacts`` (the predecessor's
names); a variant for tests has names of its own, so that it never stands where a product looks.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import machineos
from machineos.build.recipe.stageplan import DEFAULT_EPOCH
from machineos.document.model.hardware import GUEST, Hardware
from machineos.errors import MissingError, PolicyError
from machineos.host.pack.mmdebstrap import Suite
from machineos.oci.registry.proxy import DIRECT, Proxies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from machineos.core.clock import Clock
    from machineos.document.between.bootsettings import TpmKind
    from machineos.document.model.hardware import Kernel, Microcode

HOSTFS_TAG = "hostfs"
BOOTKIT_TAG = "bootkit-squashfs"
ORDINARY = "ordinary"
# With a root shell on the console, for tests. No command builds it, and only a keyset that says so
# itself can sign it: a machine of a product must never unseal for it.
DEBUG = "debug-console"
TEST_MARKER = "FOR-TESTS-ONLY"
# The keys of a keyset whose certificates are in the images, or in their policies.
ANCHORS = (
    "manifest-ca", "sudi-ca", "uefi-pk", "uefi-kek", "uefi-db", "uki-production", "tpmpol-luks",
    "tpmpol-admin",
)  # fmt: skip
VERSION_LABEL = "org.opencontainers.image.version"
KERNELS: dict[Kernel, str] = {
    "generic": "linux-image-amd64",
    "cloud": "linux-image-cloud-amd64",
}
MICROCODE: dict[Microcode, tuple[str, ...]] = {
    "amd": ("amd64-microcode",),
    "intel": ("amd64-microcode", "intel-microcode"),
    "none": (),
}
_BANNER = "DEBUG VARIANT, FOR TESTS ONLY: root shell on the console"


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where and how to build; ``cache`` outlives a build, ``variant`` is ORDINARY or DEBUG;
    ``proxies`` are the user's."""

    cache: Path
    clock: Clock
    epoch: int = DEFAULT_EPOCH
    variant: str = ORDINARY
    version: str = machineos.__version__
    policy_version: str = "0001"
    tpm_kind: TpmKind = ""
    hardware: Hardware = GUEST
    proxies: Proxies = DIRECT
    say: Callable[[str], None] = field(default=lambda _text: None)

    @property
    def banner(self) -> str:
        """What a boot image says of itself; nothing when it is an ordinary one."""
        return "" if self.variant == ORDINARY else _BANNER


def hostfs_layout(keyset: Path, variant: str) -> Path:
    """Return the folder of the OCI layout with the hostfs; variants never share the name."""
    return keyset / ("hostfs" if variant == ORDINARY else f"hostfs-{variant}") / "oci"


def bootkit_folder(keyset: Path, variant: str) -> Path:
    """Return the folder of shim, UKIs and the bootkit's OCI layout."""
    return keyset / ("bootkit" if variant == ORDINARY else f"bootkit-{variant}")


def media_folder(keyset: Path, variant: str) -> Path:
    """Return the folder of the media that were built last."""
    return keyset / ("artifacts" if variant == ORDINARY else f"artifacts-{variant}")


def require_variant(variant: str, *, for_tests: bool) -> None:
    """Refuse the debug variant for any keyset that is not marked as one for tests.

    Raises: PolicyError.
    """
    if variant != ORDINARY and not for_tests:
        raise PolicyError(f"the {variant} variant is only for keysets marked {TEST_MARKER}")


def boot_suite(hardware: Hardware) -> Suite:
    """Return the Debian tree of a boot on ``hardware``: kernel, shim, stub, programs, firmware."""
    foreign = (*hardware.packages, *MICROCODE[hardware.updates])
    packages = {
        "cryptsetup-bin", "lvm2", "python3-cryptography", "python3-msgspec", "shim-unsigned",
        "systemd-boot-efi", KERNELS[hardware.kernel], *foreign,
    }  # fmt: skip
    return Suite(
        name="trixie",
        variant="extract",
        packages=tuple(sorted(packages)),
        components=("main", "non-free-firmware") if foreign else (),
    )


def boot_root_name(suite: Suite, epoch: int) -> str:
    """Return the name of the unpacked Debian tree in the cache."""
    return f"boot-root-{_short(repr((suite, epoch)))}"


def initrd_name(root: str, kernel: str, epoch: int, source: str) -> str:
    """Return the name of an initrd's folder in the cache: made of the tree ``root``, and of our own
    code, whose digest is ``source``."""
    return f"initrd-{flavour_of(kernel)}-{_short(f'{root} {kernel} {epoch} {source}')}"


def modules_name(root: str, kernel: str, epoch: int, source: str) -> str:
    """Return the name of the folder of a layer of modules in the cache: made of the tree ``root``,
    by code with the digest ``source``."""
    return f"modules-{flavour_of(kernel)}-{_short(f'{root} {kernel} {epoch} {source}')}"


def bootkit_key(
    shop: Workshop, parts: Iterable[str], certificates: Iterable[bytes], source: str
) -> str:
    """Return what a bootkit depends on, as a digest (hex): an equal key gives equal images.

    ``parts`` name the initrd and the layer of modules, ``certificates`` are those of the keyset
    that go into the images, ``source`` is the digest of the code that makes them.
    """
    whole = (
        *parts, shop.policy_version, shop.tpm_kind, shop.hardware, shop.version, shop.variant,
        shop.epoch,
        [hashlib.sha256(pem).hexdigest() for pem in certificates], source,
    )  # fmt: skip
    return hashlib.sha256(repr(whole).encode()).hexdigest()


def flavour_of(kernel: str) -> Kernel:
    """Return which kernel a release (``6.12.1+deb13-cloud-amd64``) is of."""
    return "cloud" if "-cloud-" in kernel else "generic"


def newest_kernel(names: Sequence[str], root: Path) -> str:
    """Return the kernel to boot, of those in a tree. Raises: MissingError."""
    if not names:
        raise MissingError(f"{root} holds no kernel")
    return max(names)


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
