"""The bootkit's second layer: the modules and the firmware of one kernel, signed as one volume.

It is made before the kernel image, which names it by its root hash (docs/adr/0025). What goes in
depends on the Debian tree and not on a keyset, so all keysets share one. Which modules are in it is
decided by their folders (docs/adr/0030): what a server or a PC has, and what containers use.
"""

from __future__ import annotations

import fnmatch
import shutil
from typing import TYPE_CHECKING

from machineos.build.os.initrdplan import choose_modules
from machineos.host.pack import tools
from machineos.host.pack.depmod import module_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from machineos.host.pack.depmod import ModuleTable

MODULES, FIRMWARE = "usr/lib/modules", "usr/lib/firmware"
FOLDERS = (
    "arch/x86/crypto", "arch/x86/events", "arch/x86/kernel", "block", "crypto", "lib",
    "drivers/acpi", "drivers/ata", "drivers/block", "drivers/cdrom", "drivers/char",
    "drivers/cpufreq", "drivers/crypto", "drivers/dca", "drivers/dma", "drivers/edac",
    "drivers/firmware", "drivers/gpio", "drivers/gpu/drm/ast", "drivers/gpu/drm/hyperv",
    "drivers/gpu/drm/mgag200", "drivers/gpu/drm/tiny", "drivers/gpu/drm/virtio", "drivers/hid",
    "drivers/hv", "drivers/hwmon", "drivers/i2c", "drivers/iommu", "drivers/input/evdev",
    "drivers/input/keyboard", "drivers/input/mouse", "drivers/input/serio", "drivers/md",
    "drivers/message", "drivers/mfd", "drivers/misc", "drivers/mmc", "drivers/net/bonding",
    "drivers/net/dummy", "drivers/net/ethernet", "drivers/net/geneve", "drivers/net/hyperv",
    "drivers/net/ifb", "drivers/net/ipvlan", "drivers/net/macvlan", "drivers/net/macvtap",
    "drivers/net/mdio", "drivers/net/mii", "drivers/net/net_failover", "drivers/net/phy",
    "drivers/net/tap", "drivers/net/team", "drivers/net/tun", "drivers/net/usb",
    "drivers/net/veth", "drivers/net/virtio_net", "drivers/net/vmxnet3", "drivers/net/vrf",
    "drivers/net/vxlan", "drivers/net/wireguard", "drivers/net/xen-netback",
    "drivers/net/xen-netfront", "drivers/nvme", "drivers/nvdimm", "drivers/pci", "drivers/pinctrl",
    "drivers/platform/x86", "drivers/power", "drivers/powercap", "drivers/ptp", "drivers/ras",
    "drivers/rtc", "drivers/scsi", "drivers/thermal", "drivers/tty", "drivers/usb/class",
    "drivers/usb/common", "drivers/usb/core", "drivers/usb/host", "drivers/usb/roles",
    "drivers/usb/storage", "drivers/virt", "drivers/virtio", "drivers/watchdog", "drivers/xen",
    "fs/autofs", "fs/btrfs", "fs/configfs", "fs/efivarfs", "fs/erofs", "fs/exfat", "fs/ext4",
    "fs/fat", "fs/isofs", "fs/jbd2", "fs/lockd", "fs/mbcache", "fs/nfs", "fs/nfs_common", "fs/nls",
    "fs/overlayfs", "fs/pstore", "fs/squashfs", "fs/udf", "fs/xfs", "net/802", "net/8021q",
    "net/bridge", "net/core", "net/dns_resolver", "net/ipv4", "net/ipv6", "net/key", "net/llc",
    "net/mptcp", "net/netfilter", "net/netlink", "net/nsh", "net/openvswitch", "net/packet",
    "net/psample", "net/sched", "net/sunrpc", "net/tls", "net/unix", "net/vmw_vsock", "net/xdp",
    "net/xfrm",
)  # fmt: skip
# A process serves what is in its files or names what is executed: never beside IPE.
REFUSED = frozenset({"fuse", "cuse", "virtiofs", "binfmt_misc"})
# Files of the kernel's package that depmod reads; all others it writes.
TABLES = ("modules.builtin", "modules.builtin.modinfo", "modules.order")
_FORMS = ("", ".xz", ".zst")


def chosen(table: ModuleTable) -> tuple[str, ...]:
    """Return the paths of the modules that the layer has: those of ``FOLDERS``, those that the
    initrd has, and what they need; sorted."""
    wanted = [path for path in table.depends if _in_folders(path)]
    whole = {each for path in wanted for each in _with_needs(table, path)}
    return tuple(sorted(whole | set(choose_modules(table).paths)))


def named_firmware(names: Iterable[str], present: Iterable[str]) -> tuple[str, ...]:
    """Return those of the files ``present`` that modules name, compressed or not; a name may be a
    pattern. Both are paths in the firmware folder."""
    patterns = sorted({name + form for name in names for form in _FORMS})
    plain = {pattern for pattern in patterns if not set(pattern) & set("*?[")}
    globs = [pattern for pattern in patterns if pattern not in plain]
    return tuple(
        path
        for path in sorted(present)
        if path in plain or any(fnmatch.fnmatchcase(path, glob) for glob in globs)
    )


def modules_tree(root: Path, kernel: str, target: Path, paths: Sequence[str]) -> tuple[str, ...]:
    """Lay out the content of the layer: modules ``paths`` of ``kernel``, and the firmware that they
    name, of the Debian tree ``root``. Return the firmware's paths. Raises: ToolError.
    """
    shutil.rmtree(target, ignore_errors=True)
    source, folder = root / MODULES / kernel, target / MODULES / kernel
    _copy(source, folder, (*paths, *(name for name in TABLES if (source / name).exists())))
    # depmod looks below lib, which is a link in a whole tree; the layer has none.
    (target / "lib").symlink_to("usr/lib")
    tools.index_modules(target, kernel)
    (target / "lib").unlink()
    store = root / FIRMWARE
    present = [str(path.relative_to(store)) for path in store.rglob("*") if path.is_file()]
    firmware = named_firmware(tools.firmware_of(source / path for path in paths), present)
    (target / FIRMWARE).mkdir(parents=True)
    _copy(store, target / FIRMWARE, firmware)
    return firmware


def _copy(source: Path, target: Path, paths: Iterable[str]) -> None:
    for path in paths:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / path, target / path)


def _in_folders(path: str) -> bool:
    inner = path.removeprefix("kernel/")
    return any(inner.startswith((f"{folder}/", f"{folder}.ko")) for folder in FOLDERS)


def _with_needs(table: ModuleTable, path: str) -> tuple[str, ...]:
    """Return a module with what it needs; nothing when one of them is refused."""
    whole = (*table.depends[path], path)
    return () if any(module_name(each) in REFUSED for each in whole) else whole
