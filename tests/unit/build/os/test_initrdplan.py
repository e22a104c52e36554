"""Which kernel modules go into the initrd, and when each is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from changed import replace
from machineos.build.os import initrdplan
from machineos.build.os.initrdplan import (
    BESIDE,
    DRIVERS,
    FILESYSTEMS,
    MODULES,
    WATCHDOGS,
    Base,
    StoredBase,
)
from machineos.errors import MissingError
from machineos.host.pack.depmod import ModuleTable


def table(*, without: str = "", aliases: tuple[tuple[str, str], ...] = ()) -> ModuleTable:
    """A kernel that has every module in a file of its own, but for one that lacks."""
    tables = (MODULES, DRIVERS, WATCHDOGS, *FILESYSTEMS.values(), *BESIDE.values())
    names = {name for each in tables for name in each}
    paths = {f"kernel/{name}.ko.xz": () for name in sorted(names - {without})}
    depends = {**paths, "kernel/nvme.ko.xz": ("kernel/nvme-core.ko.xz",)}
    return ModuleTable({**depends, "kernel/nvme-core.ko.xz": ()}, aliases, frozenset())


def test_no_module_is_named_twice() -> None:
    assert len(set(MODULES)) == len(MODULES)
    assert not set(MODULES) & set(DRIVERS)


def test_the_tables() -> None:
    """What a machine boots with; a word less and some machine does not."""
    assert MODULES == (
        "loop", "dm-mod", "dm-verity", "dm-crypt", "dm-integrity", "crc32c_generic",
        "dm-thin-pool", "squashfs", "overlay", "xts", "authenc", "aesni-intel", "sha256-ssse3",
    )  # fmt: skip
    assert FILESYSTEMS == {
        "erofs": ("crc32c_generic", "erofs"),
        "ext4": ("crc32c_generic", "ext4"),
        "iso9660": ("isofs",),
        "vfat": ("vfat", "nls_cp437", "nls_ascii"),
    }
    assert DRIVERS == (
        "virtio_blk", "virtio_scsi", "sd_mod", "sr_mod", "ahci", "ata_piix", "nvme", "xhci-pci",
        "usb-storage", "uas", "hv_storvsc", "vmw_pvscsi", "mptspi", "megaraid_sas",
        "xen-blkfront", "mpt3sas", "mptsas", "mpi3mr", "smartpqi", "hpsa", "aacraid", "ehci-pci",
        "vmd", "sdhci-pci",
    )  # fmt: skip
    assert WATCHDOGS == (
        "i6300esb", "lpc_ich", "i2c-i801", "iTCO_wdt", "sp5100_tco", "wdat_wdt",
    )  # fmt: skip
    assert initrdplan.PROGRAMS == (
        "usr/sbin/cryptsetup", "usr/sbin/integritysetup", "usr/sbin/lvm",
    )  # fmt: skip
    assert initrdplan.PYTHON == "usr/bin/python3.13"
    assert initrdplan.PACKAGE == "usr/lib/machineos/python"
    assert initrdplan.FOLDERS == (
        "dev", "proc", "sys", "run", "sysroot", "tmp", "usr/bin", "usr/sbin", "etc",
    )  # fmt: skip
    assert initrdplan.MERGED == ("bin", "sbin", "lib", "lib64")


def test_what_every_machine_needs_is_loaded_always_in_its_order() -> None:
    chosen = initrdplan.choose_modules(table())
    assert chosen.always == tuple(f"kernel/{name}.ko.xz" for name in MODULES)
    with pytest.raises(MissingError, match="this kernel has no module dm-verity"):
        initrdplan.choose_modules(table(without="dm-verity"))


def test_a_driver_is_loaded_for_what_it_says_it_serves_with_what_it_needs() -> None:
    aliases = (("pci:nvme*", "nvme"), ("pci:other*", "other"), ("usb:x*", "usb_storage"))
    chosen = initrdplan.choose_modules(table(aliases=aliases))
    assert chosen.drivers == (
        ("pci:nvme*", ("kernel/nvme-core.ko.xz", "kernel/nvme.ko.xz")),
        ("usb:x*", ("kernel/usb-storage.ko.xz",)),
    )


def test_watchdogs_have_a_table_of_their_own_in_its_order() -> None:
    aliases = (
        ("platform:iTCO_wdt", "iTCO_wdt"),
        ("pci:lpc*", "lpc_ich"),
        ("pci:esb*", "i6300esb"),
    )
    chosen = initrdplan.choose_modules(table(aliases=aliases))
    assert chosen.watchdogs == (
        ("pci:esb*", ("kernel/i6300esb.ko.xz",)),
        ("pci:lpc*", ("kernel/lpc_ich.ko.xz",)),
        ("platform:iTCO_wdt", ("kernel/iTCO_wdt.ko.xz",)),
    )
    assert chosen.drivers == ()
    assert "kernel/lpc_ich.ko.xz" in chosen.paths


def test_a_bus_without_aliases_has_its_driver_with_that_of_the_controller() -> None:
    chosen = initrdplan.choose_modules(table(aliases=(("pci:sd*", "sdhci_pci"),)))
    assert chosen.drivers == (("pci:sd*", ("kernel/sdhci-pci.ko.xz", "kernel/mmc_block.ko.xz")),)


def test_a_driver_that_a_kernel_lacks_is_left_out() -> None:
    aliases = (("pci:nvme*", "nvme"),)
    assert initrdplan.choose_modules(table(without="nvme", aliases=aliases)).drivers != ()
    assert initrdplan.choose_modules(table(without="uas", aliases=aliases)).always


def test_a_file_system_is_loaded_when_it_is_mounted() -> None:
    chosen = initrdplan.choose_modules(table())
    assert chosen.filesystems["vfat"] == (
        "kernel/vfat.ko.xz",
        "kernel/nls_cp437.ko.xz",
        "kernel/nls_ascii.ko.xz",
    )
    assert set(chosen.filesystems) == {"erofs", "ext4", "iso9660", "vfat"}


def test_each_file_is_installed_once_under_its_plain_name() -> None:
    chosen = initrdplan.Modules(("a/x.ko.xz", "b/y.ko"), (("p", ("b/y.ko", "z.ko")),), {"v": ()})
    assert chosen.paths == ("a/x.ko.xz", "b/y.ko", "z.ko")
    assert initrdplan.loaded_as(chosen.paths) == ("x.ko", "y.ko", "z.ko")


def test_a_base_is_remembered_without_its_place() -> None:
    drivers, watchdogs = (("p", ("b",)),), (("w", ("d",)),)
    base = Base(Path("/old/a"), "6.12", ("a",), drivers, {"v": ("c",)}, watchdogs)
    again = StoredBase.of(base).base(Path("/new"))
    assert again == replace(base, archive=Path("/new/initrd.cpio.zst"))


def test_the_first_process_is_ours_and_has_no_path_but_ours_and_debians() -> None:
    text = initrdplan.ENTRY.decode()
    assert text.startswith("#!/usr/bin/python3 -IBS\n")
    compile(text, "init", "exec")
    compile(initrdplan.TRACE, "trace", "exec")
    assert "from machineos.boot.main import main\nmain()\n" in text
