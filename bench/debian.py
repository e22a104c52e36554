"""The peer of our boot: the same kernel and the same root, started by Debian's own initramfs.

Owns a Debian tree in which Debian's own scripts made the initramfs (initramfs-tools, all defaults),
and a disk with our root as ext4. Nothing in that boot is verified after the kernel has started.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.build.os import bootimage, bootkit, uki
from machineos.build.os.appliance import boot_root
from machineos.build.os.workshop import Workshop, hostfs_layout
from machineos.core.clock import SystemClock
from machineos.core.run import find, perform, run
from machineos.errors import MissingError, MissingToolError
from machineos.host.disk import sfdisk
from machineos.host.pack import mmdebstrap, squashfs, tools
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.documents import parse_manifest
from machineos.trust.keys import efi

if TYPE_CHECKING:
    from bench.workspace import Bench
    from machineos.trust.keys.keyset import Keyset

LABEL = "benchroot"
HANDOVER, READY = "bench: handed over at", "bench: multi-user at"
# The product's own command line, so that the kernel does the same on both sides, and the root.
COMMAND_LINE = f"{bootimage.COMMAND_LINE} root=LABEL={LABEL} rw"
_SUITE = mmdebstrap.Suite(
    name="trixie",
    variant="minbase",
    packages=(
        "busybox", "e2fsprogs", "initramfs-tools", "kmod", "linux-image-cloud-amd64", "perl",
        "python3", "systemd-sysv", "udev", "zstd",
    ),
)  # fmt: skip
_EPOCH = 1735689600
_TOOLS = "usr/lib/bench"
STAND_IN = f"/{_TOOLS}/init"
_SYSTEMD = "/usr/lib/systemd/systemd"  # our root has no /sbin/init
# Nothing on this root listens to the power button; its disk has to be left clean.
_OFF = "exec /usr/bin/systemctl --no-block poweroff"
_WORDS = """#!/usr/lib/bench/busybox sh
read up rest < /proc/uptime
echo "{words} $up" > /dev/console
{then}
"""
_UNIT = """\
[Unit]
Description=Says when multi-user.target is reached
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/usr/lib/bench/busybox sh /usr/lib/bench/ready
"""
_ESP_SIZE, _SLACK = 128 << 20, 160 << 20
_MIB = 1 << 20
_TIMEOUT = 900.0


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
    path = bench.folder / "debian.tar"
    if not path.is_file():
        bench.say("  (making a Debian root with initramfs-tools)")
        work = bench.fresh("debian-work")
        work.mkdir()
        tools.build_root(_SUITE, work / "debian.tar", epoch=_EPOCH, temporary=work)
        (work / "debian.tar").rename(path)
        shutil.rmtree(work)
    return path


def tree(bench: Bench) -> Path:
    """Return the Debian tree unpacked; kept between runs."""
    path = bench.folder / "debian"
    if not path.is_dir():
        work = bench.fresh("debian-new")
        work.mkdir()
        run(["tar", "-C", work, "--numeric-owner", "-xpf", archive(bench)], timeout=_TIMEOUT)
        work.rename(path)
    return path


def peer(bench: Bench, keyset: Keyset) -> Peer:
    """Return the peer of our boot, made anew when our root has changed.

    Raises: MissingError when the two kernels are not the same, ToolError.
    """
    folder = bench.folder / "peer"
    made = Peer(
        folder / "vmlinuz", folder / "initrd.img", folder / "root.ext4", folder / "disk.img",
        folder / "short.img",
    )  # fmt: skip
    image = LayoutRepository(hostfs_layout(keyset.root, "ordinary"))
    descriptor, data = image.manifest("hostfs")
    stamp = folder / "made-for"
    wanted = f"{descriptor.digest} {hashlib.sha256(Path(__file__).read_bytes()).hexdigest()}"
    if stamp.is_file() and stamp.read_text() == wanted:
        return made
    bench.say("  (making the peer's root and disk)")
    debian = tree(bench)
    own = boot_root(Workshop(bench.home.cache / "machineos", SystemClock()))
    kernel = _same_kernel(own, debian)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copyfile(debian / "boot" / f"vmlinuz-{kernel}", made.kernel)
    shutil.copyfile(debian / "boot" / f"initrd.img-{kernel}", made.initramfs)
    layer = parse_manifest(data, name="hostfs", media_type=descriptor.media_type).layers[0]
    root = folder / "tree"
    perform(squashfs.unpack_command(image.blob_path(layer.digest), root))
    _furnish(root, debian, kernel)
    _ext4(root, made.root)
    shutil.rmtree(root)
    for disk, init in ((made.disk, _SYSTEMD), (made.short, STAND_IN)):
        _disk(keyset, own, made, folder, disk=disk, init=init)
    stamp.write_text(wanted)
    return made


def _same_kernel(own: Path, debian: Path) -> str:
    ours, theirs = (
        sorted(path.name for path in (root / "usr/lib/modules").iterdir()) for root in (own, debian)
    )
    if ours != theirs:
        raise MissingError(
            f"the kernels differ: ours {ours}, theirs {theirs}",
            hint="make clean, so that both are fetched anew",
        )
    return ours[-1]


def _furnish(root: Path, debian: Path, kernel: str) -> None:
    """Add what the peer's boot needs and what tells us how far it is."""
    modules = root / "usr/lib/modules" / kernel
    shutil.copytree(debian / "usr/lib/modules" / kernel, modules, symlinks=True)
    busybox = find("busybox")
    if busybox is None:
        raise MissingToolError("busybox-static is not installed", hint="scripts/setup dev")
    tools = root / _TOOLS
    tools.mkdir(parents=True)
    shutil.copy(busybox, tools / "busybox")
    off = "exec /usr/lib/bench/busybox poweroff -f"
    for name, words, then in (("init", HANDOVER, off), ("ready", READY, _OFF)):
        (tools / name).write_text(_WORDS.format(words=words, then=then))
        (tools / name).chmod(0o755)
    # One that stays, as our own machines have one: else every boot would be a first one.
    (root / "etc/machine-id").write_text(f"{'b' * 32}\n")
    units = root / "usr/lib/systemd/system"
    (units / "bench-ready.service").write_text(_UNIT)
    (units / "multi-user.target.wants/bench-ready.service").symlink_to("../bench-ready.service")


def _ext4(root: Path, image: Path) -> None:
    used = int(run(["du", "-s", "-B1", root], timeout=_TIMEOUT).text.split()[0])
    with image.open("wb") as file:
        file.truncate((used + used // 8 + _SLACK) // _MIB * _MIB)
    run(["mkfs.ext4", "-q", "-F", "-L", LABEL, "-d", root, image], timeout=_TIMEOUT)


def _disk(keyset: Keyset, own: Path, made: Peer, work: Path, *, disk: Path, init: str) -> None:
    """Lay shim, UKI and root out as our own machines have them: GPT, an ESP, the root."""
    stub = (own / bootimage.STUB_PATH).read_bytes()
    sections = {
        ".osrel": b"ID=debian\n",
        ".cmdline": f"{COMMAND_LINE} init={init}".encode() + b"\0",
        ".initrd": made.initramfs.read_bytes(),
        ".linux": made.kernel.read_bytes(),
    }
    unsigned, signed, shim = work / "unsigned.efi", work / "uki.efi", work / "shim.efi"
    unsigned.write_bytes(uki.assemble(stub, sections, sbat=bootimage.sbat_text(stub)))
    efi.sign_efi(unsigned, signed, keyset.key("uki-production"))
    bootkit.build_shim(bootkit.Anchored(keyset), own, shim, work=work)
    esp = work / "esp.img"
    files = {"EFI/BOOT/BOOTX64.EFI": shim, "EFI/BOOT/grubx64.efi": signed}
    tools.make_fat(esp, label="ESP", files=files, epoch=_EPOCH, size=_ESP_SIZE)
    size = made.root.stat().st_size
    with disk.open("wb") as file:
        file.truncate(_ESP_SIZE + size + 2 * _MIB)
    linux = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
    parts = [
        sfdisk.PartitionSpec("esp", sfdisk.ESP, _ESP_SIZE),
        sfdisk.PartitionSpec("root", linux, size),
    ]
    run(["sfdisk", "--quiet", disk], input=sfdisk.script(parts).encode(), timeout=_TIMEOUT)
    for image, start in ((esp, 1), (made.root, 1 + _ESP_SIZE // _MIB)):
        run(
            ["dd", f"if={image}", f"of={disk}", "bs=1M", f"seek={start}",
             "conv=notrunc,sparse", "status=none"],
            timeout=_TIMEOUT,
        )  # fmt: skip
    for path in (unsigned, signed, shim, esp):
        path.unlink()
