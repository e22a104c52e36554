"""The plain peer of our boot: the same kernel and the same root, by Debian's own initramfs.

Owns a Debian tree in which Debian's own scripts made the initramfs (initramfs-tools, all defaults),
and a disk with our root as ext4. Nothing in that boot is verified after the kernel has started.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench import rig
from machineos.build.os import bootimage
from machineos.build.os.appliance import boot_root
from machineos.build.os.workshop import Workshop
from machineos.core.clock import SystemClock

if TYPE_CHECKING:
    from bench.workspace import Bench
    from machineos.trust.keys.keyset import Keyset

LABEL = "benchroot"
# The product's own command line, so that the kernel does the same on both sides, and the root.
COMMAND_LINE = f"{bootimage.COMMAND_LINE} root=LABEL={LABEL} rw"
STAND_IN = f"/{rig.TOOLS}/init"
_PACKAGES = (
    "busybox", "e2fsprogs", "initramfs-tools", "kmod", "linux-image-cloud-amd64", "perl",
    "python3", "systemd-sysv", "udev", "zstd",
)  # fmt: skip
_WORDS = """\
read up rest < /proc/uptime
echo "{words} $up" > /dev/console
{then}
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """Kernel, initramfs, the bare root (ext4), and two bootable disks with all three: ``disk`` goes
    on with systemd, ``short`` ends where systemd would begin."""

    kernel: Path
    initramfs: Path
    root: Path
    disk: Path
    short: Path


def archive(bench: Bench) -> Path:
    """Return the Debian tree as a tar file; kept between runs."""
    return rig.archive(bench, "debian", _PACKAGES)


def tree(bench: Bench) -> Path:
    """Return it unpacked; kept between runs."""
    return rig.tree(bench, "debian", _PACKAGES)


def peer(bench: Bench, keyset: Keyset) -> Peer:
    """Return the peer of our boot, made anew when our root has changed.

    Raises: MissingError when the two kernels are not the same, ToolError.
    """
    folder = bench.folder / "peer"
    made = Peer(
        folder / "vmlinuz", folder / "initrd.img", folder / "root.ext4", folder / "disk.img",
        folder / "short.img",
    )  # fmt: skip
    stamp = folder / "made-for"
    sources = b"".join(Path(file).read_bytes() for file in (__file__, rig.__file__))
    wanted = f"{rig.root_digest(keyset)} {hashlib.sha256(sources).hexdigest()}"
    if stamp.is_file() and stamp.read_text() == wanted:
        return made
    bench.say("  (making the peer's root and disk)")
    debian = tree(bench)
    own = boot_root(Workshop(bench.home.cache / "machineos", SystemClock()))
    kernel = rig.same_kernel(own, debian)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copyfile(debian / "boot" / f"vmlinuz-{kernel}", made.kernel)
    shutil.copyfile(debian / "boot" / f"initrd.img-{kernel}", made.initramfs)
    root = folder / "tree"
    rig.unpack_root(keyset, root)
    rig.furnish(root, debian, kernel, _WORDS.format(words=rig.READY, then=rig.OFF))
    off = "exec /usr/lib/bench/busybox poweroff -f"
    rig.script(root, "init", _WORDS.format(words=rig.HANDOVER, then=off))
    rig.ext4(root, made.root, LABEL)
    shutil.rmtree(root)
    for disk, init in ((made.disk, rig.SYSTEMD), (made.short, STAND_IN)):
        start = rig.Start(made.kernel, made.initramfs.read_bytes(), f"{COMMAND_LINE} init={init}")
        rig.disk(keyset, own, start, [rig.Partition("root", made.root)], disk, work=folder)
    stamp.write_text(wanted)
    return made
