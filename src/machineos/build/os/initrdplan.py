"""What goes into the initrd: which programs and kernel modules, and what its first process is.

Tables and choices; ``initrd`` copies and packs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from machineos.errors import MissingError

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.host.pack.depmod import ModuleTable

# Needed in every mode, in every machine. Loading one costs a signature check, so no more than that.
# Some ask for crc32c by its name alone, which no order of dependencies brings: dm-thin-pool's
# libcrc32c, and two file systems (modules.softdep). Without it they fail with ENOENT.
MODULES = (
    "loop", "dm-mod", "dm-verity", "dm-crypt", "dm-integrity", "crc32c_generic", "dm-thin-pool",
    "squashfs", "overlay", "xts", "authenc", "aesni-intel", "sha256-ssse3",
)  # fmt: skip
# File systems that are loaded when something is to be mounted with them.
FILESYSTEMS = {
    "erofs": ("crc32c_generic", "erofs"),
    "ext4": ("crc32c_generic", "ext4"),
    "iso9660": ("isofs",),
    "vfat": ("vfat", "nls_cp437", "nls_ascii"),
}
# Disk and optical drivers: loaded when a device that they serve is there.
DRIVERS = (
    "virtio_blk", "virtio_scsi", "sd_mod", "sr_mod", "ahci", "ata_piix", "nvme", "xhci-pci",
    "usb-storage", "uas", "hv_storvsc", "vmw_pvscsi", "mptspi", "megaraid_sas", "xen-blkfront",
    "mpt3sas", "mptsas", "mpi3mr", "smartpqi", "hpsa", "aacraid", "ehci-pci", "vmd", "sdhci-pci",
)  # fmt: skip
# Before all others: from then on a boot that hangs ends. What makes the device of another stands
# before it: the chipset's own drivers that of iTCO_wdt.
WATCHDOGS = ("i6300esb", "lpc_ich", "i2c-i801", "iTCO_wdt", "sp5100_tco", "wdat_wdt")
# What serves a device whose bus tells no alias.
BESIDE = {"sdhci-pci": ("mmc_block",)}
Drivers = tuple[tuple[str, tuple[str, ...]], ...]
PROGRAMS = ("usr/sbin/cryptsetup", "usr/sbin/integritysetup", "usr/sbin/lvm")
PYTHON = "usr/bin/python3.13"
PACKAGE = "usr/lib/machineos/python"
FOLDERS = ("dev", "proc", "sys", "run", "sysroot", "tmp", "usr/bin", "usr/sbin", "etc")
MERGED = ("bin", "sbin", "lib", "lib64")  # links into usr
ENTRY = b"""#!/usr/bin/python3 -IBS
import gc, os, sys
gc.disable()  # what lives for seconds needs no collector
# OpenSSL's legacy algorithms are not in this initrd, and cryptography must not look for them.
os.environ["CRYPTOGRAPHY_OPENSSL_NO_LEGACY"] = "1"
sys.path[:] = ["/usr/lib/machineos/python", "/usr/lib/python3.13",
               "/usr/lib/python3.13/lib-dynload", "/usr/lib/python3/dist-packages"]
from machineos.boot.main import main
main()
"""
# Runs in the tree's own interpreter: imports the bring-up, lists every file that took, and compiles
# each source to bytecode that is never checked against a source (there is none in the initrd).
TRACE = """
import importlib, py_compile, sys
sys.path.insert(0, "/usr/lib/machineos/python")
sys.modules["bcrypt"] = None  # cryptography wants it for SSH keys, and does without it
import machineos.boot.main
for name in machineos.boot.main.LATE_IMPORTS:
    importlib.import_module(name)
machineos.boot.plan.found()  # every phase, for whichever mode
for module in list(sys.modules.values()):
    path = getattr(module, "__file__", None)
    if path is None or module.__name__ == "__main__":
        continue
    if path.endswith(".py"):
        py_compile.compile(path, cfile="/tmp/pyc" + path + "c", dfile=path, doraise=True,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    else:
        print(path)
"""


@dataclass(frozen=True, slots=True)
class Base:
    """The part that does not depend on the product. ``drivers`` and ``watchdogs``: (alias pattern,
    module files); ``filesystems``: type of mount(2) -> module files."""

    archive: Path
    kernel: str
    modules: tuple[str, ...]
    drivers: Drivers
    filesystems: dict[str, tuple[str, ...]]
    watchdogs: Drivers = ()


class StoredBase(msgspec.Struct, frozen=True):
    """A base as the cache remembers it."""

    kernel: str
    modules: tuple[str, ...]
    drivers: Drivers
    filesystems: dict[str, tuple[str, ...]]
    watchdogs: Drivers = ()

    @classmethod
    def of(cls, base: Base) -> StoredBase:
        """Return what to remember of ``base``."""
        return cls(base.kernel, base.modules, base.drivers, base.filesystems, base.watchdogs)

    def base(self, folder: Path) -> Base:
        """Return the base that is stored in ``folder``."""
        archive = folder / "initrd.cpio.zst"
        return Base(
            archive, self.kernel, self.modules, self.drivers, self.filesystems, self.watchdogs
        )


@dataclass(frozen=True, slots=True)
class Modules:
    """The kernel modules to install, as paths in the modules folder, and when they are loaded:
    always, for a device that matches a pattern, for a type of mount(2), first of all."""

    always: tuple[str, ...]
    drivers: Drivers
    filesystems: dict[str, tuple[str, ...]]
    watchdogs: Drivers = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path once."""
        served = (order for _, order in (*self.watchdogs, *self.drivers))
        orders = (self.always, *served, *self.filesystems.values())
        return tuple(dict.fromkeys(path for order in orders for path in order))


def choose_modules(table: ModuleTable) -> Modules:
    """Return what this kernel needs. Raises: MissingError for a module that every machine needs."""
    needed = {kind: table.load_order(names) for kind, names in FILESYSTEMS.items()}
    return Modules(
        table.load_order(MODULES), _served(table, DRIVERS), needed, _served(table, WATCHDOGS)
    )


def _served(table: ModuleTable, names: tuple[str, ...]) -> Drivers:
    """Return what is loaded for which devices, of these drivers."""
    found: list[tuple[str, tuple[str, ...]]] = []
    for name in names:
        try:
            order = table.load_order([name, *BESIDE.get(name, ())])
        except MissingError:  # not every kernel flavour has every driver
            continue
        key = name.replace("-", "_")
        found += [(pattern, order) for pattern, owner in table.aliases if owner == key and order]
    return tuple(found)


def file_name(path: str) -> str:
    """Return the name of a module in the initrd, where none is compressed."""
    return path.rsplit("/", 1)[-1].removesuffix(".xz")


def loaded_as(order: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of an order of paths."""
    return tuple(file_name(path) for path in order)
