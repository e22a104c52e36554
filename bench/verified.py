"""The fair peer of our boot: the same kernel and the same root, by systemd's initrd, verified.

dracut packs Debian's own systemd with systemd-cryptsetup, systemd-veritysetup and only the drivers
that this virtual machine has, which is less than ours holds. It does the same work: the root is a
squashfs under dm-verity, its root hash signed by the key that shim vouches for, and a LUKS2 volume
is opened by a key that the TPM seals to PCR 7. It knows no signed policy for the UKI, no doors, no
enforcement of what is executed, no generations, and checks no document.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench import rig
from machineos.build.os import bootimage, initrd
from machineos.build.os.appliance import boot_root
from machineos.build.os.workshop import Workshop
from machineos.core.clock import SystemClock
from machineos.core.run import run
from machineos.host.pack import squashfs, tools
from machineos.trust.keys.signer import FileSigner

if TYPE_CHECKING:
    from bench.workspace import Bench
    from machineos.trust.keys.keyset import Keyset

ENROLLED = "bench: enrolled"
UUID = "b0000000-0000-4000-8000-000000000001"  # of the LUKS volume
_SALT, _VERITY = "5b" * 32, "b0000000-0000-4000-8000-000000000002"
_PACKAGES = (
    "busybox", "cryptsetup-bin", "dracut", "e2fsprogs", "kmod", "libtss2-esys-3.0.2-0t64",
    "libtss2-mu-4.0.1-0t64", "libtss2-rc0t64", "libtss2-tcti-device0t64",
    "linux-image-cloud-amd64", "systemd-cryptsetup", "systemd-sysv", "udev", "zstd",
)  # fmt: skip
_MODULES = (
    "base crypt dm dracut-systemd fs-lib kernel-modules rootfs-block shutdown systemd "
    "systemd-cryptsetup systemd-initrd systemd-journald systemd-udevd systemd-veritysetup "
    "udev-rules"
)
_DRIVERS = "virtio_blk virtio_pci squashfs ext4 dm_verity dm_crypt"
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
# What systemd-cryptsetup opens when it runs, so that dracut does not find it.
_OPENED = ("libtss2-*.so.*", "cryptsetup/libcryptsetup-token-systemd-tpm2.so")
_LABEL, _SIGNATURE = "benchenrol", "root.p7s"
_FSTAB = "/dev/mapper/config /config ext4 ro 0 0\ntmpfs /var tmpfs mode=0755 0 0\n"
_CONFIG_SIZE = 64 << 20
_DISK_SIZE = 1 << 30  # of both, since it is one disk to its machine
# systemd knows by the kernel's clock when it began. Asked after the end, so that it costs nothing.
_READY = f"""\
read up rest < /proc/uptime
echo "{rig.READY} $up" > /dev/console
handed=$(/usr/bin/systemctl show -P UserspaceTimestampMonotonic)
echo "{rig.HANDOVER} $handed us" > /dev/console
{rig.OFF}
"""
# Runs as the first process of the Debian root, once: the TPM seals the key of the volume to the
# firmware's state, which is that of the other boots.
_ENROL = f"""\
export PATH=/usr/bin:/usr/sbin
exec > /dev/console 2>&1
device=/dev/vda3
set -e
umask 077
echo bench > /run/key
cryptsetup luksFormat --batch-mode --type luks2 --uuid {UUID} --pbkdf pbkdf2 \
    --pbkdf-force-iterations 1000 --key-file /run/key $device
cryptsetup open --key-file /run/key $device config
mkfs.ext4 -q /dev/mapper/config
cryptsetup close config
systemd-cryptenroll --unlock-key-file=/run/key --tpm2-device=auto --tpm2-pcrs=7 $device
sync
echo "{ENROLLED}"
exec /usr/lib/bench/busybox poweroff -f
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """Two disks of the same places, ``enrol`` to be booted first and ``disk`` then, with the volume
    that the first boot made; ``volume`` says where that lies in each (bytes)."""

    enrol: Path
    disk: Path
    volume: tuple[int, int]


def take_volume(peer: Peer, live: Path) -> None:
    """Make ``live``, the disk of a machine that enrolled, one that boots verified."""
    source, target = peer.volume
    volume = live.with_suffix(".volume")
    run(
        ["dd", f"if={live}", f"of={volume}", "bs=1M", f"skip={source >> 20}",
         f"count={_CONFIG_SIZE >> 20}", "status=none"],
        timeout=rig.TIMEOUT,
    )  # fmt: skip
    shutil.copyfile(peer.disk, live)
    rig.copy_into(volume, live, target)
    volume.unlink()


def peer(bench: Bench, keyset: Keyset) -> Peer:
    """Return the peer of our boot, made anew when our root has changed.

    Raises: MissingError when the two kernels are not the same, ToolError.
    """
    folder = bench.folder / "verified"
    root, volume = folder / "root.squashfs", folder / "config"
    theirs = [rig.Partition("root", root), rig.Partition("config", volume)]
    first = [rig.Partition("enrol", folder / "enrol.ext4"), rig.Partition("config", volume)]
    stamp = folder / "made-for"
    sources = b"".join(Path(file).read_bytes() for file in (__file__, rig.__file__))
    wanted = f"{rig.root_digest(keyset)} {hashlib.sha256(sources).hexdigest()}"
    if not (stamp.is_file() and stamp.read_text() == wanted):
        bench.say("  (making the fair peer's root and disks)")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        with volume.open("wb") as file:
            file.truncate(_CONFIG_SIZE)
        _make(bench, keyset, folder, theirs, first)
        stamp.write_text(wanted)
    places = rig.offsets(first)[-1], rig.offsets(theirs)[-1]
    return Peer(folder / "enrol.img", folder / "disk.img", places)


def _make(
    bench: Bench,
    keyset: Keyset,
    folder: Path,
    theirs: list[rig.Partition],
    first: list[rig.Partition],
) -> None:
    debian = rig.tree(bench, "dracut", _PACKAGES)
    own = boot_root(Workshop(bench.home.cache / "machineos", SystemClock()))
    kernel = rig.same_kernel(own, debian)
    vmlinuz = debian / "boot" / f"vmlinuz-{kernel}"
    packed = _dracut(debian, kernel)
    options = _root(keyset, debian, kernel, folder, theirs[0].image)
    with_signature = packed + bytes(-len(packed) % 4) + (folder / "signature").read_bytes()
    words = (
        f"{bootimage.COMMAND_LINE} init={rig.SYSTEMD} root=/dev/mapper/root ro "
        f"rootfstype=squashfs {options} "
        f"rd.luks.name={UUID}=config rd.luks.options={UUID}=tpm2-device=auto"
    )
    start = rig.Start(vmlinuz, with_signature, words)
    rig.disk(keyset, own, start, theirs, folder / "disk.img", work=folder, size=_DISK_SIZE)
    rig.script(debian, "enrol", _ENROL)
    rig.ext4(debian, first[0].image, _LABEL)
    words = f"{bootimage.COMMAND_LINE} init=/{rig.TOOLS}/enrol root=LABEL={_LABEL} rw"
    start = rig.Start(vmlinuz, packed, words)
    rig.disk(keyset, own, start, first, folder / "enrol.img", work=folder, size=_DISK_SIZE)


def _dracut(debian: Path, kernel: str) -> bytes:
    """Return the initrd that dracut packs in the tree."""
    opened = [
        f"/{path.relative_to(debian)}"
        for pattern in _OPENED
        for path in sorted((debian / _LIBRARIES).glob(pattern))
    ]
    (debian / "dev").mkdir(exist_ok=True)
    mounts = "; ".join(f'mount --rbind /{name} "$0/{name}"' for name in ("proc", "sys", "dev"))
    argv = [
        "dracut", "--force", "--quiet", "--no-hostonly", "--no-early-microcode", "--kver", kernel,
        "--zstd", "--modules", _MODULES, "--drivers", _DRIVERS, "--install", " ".join(opened),
        "/boot/bench.img",
    ]  # fmt: skip
    inside = f'set -e; {mounts}; exec chroot "$0" "$@"'
    run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", inside, debian, *argv],
        timeout=rig.TIMEOUT,
    )
    return (debian / "boot/bench.img").read_bytes()


def _root(keyset: Keyset, debian: Path, kernel: str, folder: Path, image: Path) -> str:
    """Pack and sign the root; return the words for systemd-veritysetup and leave the signature as
    an archive beside it."""
    root = folder / "tree"
    rig.unpack_root(keyset, root)
    rig.furnish(root, debian, kernel, _READY)
    (root / "etc/fstab").write_text(_FSTAB)
    (root / "config").mkdir(exist_ok=True)
    pack = squashfs.argv_make(root, image, epoch=rig.EPOCH, keep_times=False, owners=True)
    run(pack, timeout=rig.TIMEOUT)
    shutil.rmtree(root)
    size = image.stat().st_size
    root_hash = tools.format_verity(image, data_size=size, salt=_SALT, uuid=_VERITY)
    stage = folder / "stage"
    stage.mkdir()
    signature = FileSigner.open(keyset.key("uki-production")).sign_root_hash(root_hash)
    (stage / _SIGNATURE).write_bytes(signature)
    initrd.pack(stage, folder / "signature", epoch=rig.EPOCH, compress=False)
    shutil.rmtree(stage)
    return (
        f"roothash={root_hash} systemd.verity_root_data=PARTLABEL=root "
        "systemd.verity_root_hash=PARTLABEL=root "
        f"systemd.verity_root_options=hash-offset={size},root-hash-signature=/{_SIGNATURE}"
    )
