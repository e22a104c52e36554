"""What the peers of our boot share: Debian trees, our own root furnished to tell how far its boot
is, and a disk laid out as our machines have them, with shim, a UKI and what else is given.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.build.os import bootimage, bootkit, uki
from machineos.build.os.workshop import hostfs_layout
from machineos.core.run import find, perform, run
from machineos.errors import MissingError, MissingToolError
from machineos.host.disk import sfdisk
from machineos.host.pack import mmdebstrap, squashfs, tools
from machineos.host.pack.caller import own_ids
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.documents import parse_manifest
from machineos.trust.keys import efi

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.workspace import Bench
    from machineos.trust.keys.keyset import Keyset

HANDOVER, READY = "bench: handed over at", "bench: multi-user at"
SYSTEMD = "/usr/lib/systemd/systemd"  # our root has no /sbin/init
TOOLS = "usr/lib/bench"
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
EPOCH = 1735689600
# Nothing on these roots listens to the power button; their disks have to be left clean.
OFF = "exec /usr/bin/systemctl --no-block poweroff"
ESP_SIZE = 128 << 20
TIMEOUT = 900.0
_MIB = 1 << 20
_UNIT = """\
[Unit]
Description=Says when multi-user.target is reached
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/usr/lib/bench/busybox sh /usr/lib/bench/ready
"""


@dataclass(frozen=True, slots=True)
class Start:
    """What a UKI is made of."""

    kernel: Path
    initrd: bytes
    command_line: str


@dataclass(frozen=True, slots=True)
class Partition:
    """One more partition of a disk, of the size of its image."""

    label: str
    image: Path


def archive(bench: Bench, name: str, packages: Sequence[str]) -> Path:
    """Return a Debian root with these packages as a tar file; kept between runs."""
    path = bench.folder / f"{name}.tar"
    if not path.is_file():
        bench.say(f"  (making a Debian root: {name})")
        work = bench.fresh(f"{name}-work")
        work.mkdir()
        suite = mmdebstrap.Suite(name="trixie", variant="minbase", packages=tuple(packages))
        tools.build_root(suite, work / path.name, epoch=EPOCH, ids=own_ids("the peers"))
        (work / path.name).rename(path)
        shutil.rmtree(work)
    return path


def tree(bench: Bench, name: str, packages: Sequence[str]) -> Path:
    """Return the same, unpacked; kept between runs."""
    path = bench.folder / name
    if not path.is_dir():
        work = bench.fresh(f"{name}-new")
        work.mkdir()
        packed = archive(bench, name, packages)
        run(["tar", "-C", work, "--numeric-owner", "-xpf", packed], timeout=TIMEOUT)
        work.rename(path)
    return path


def same_kernel(own: Path, debian: Path) -> str:
    """Return the version of the kernel in both trees. Raises: MissingError when they differ."""
    ours, theirs = (
        sorted(path.name for path in (root / "usr/lib/modules").iterdir()) for root in (own, debian)
    )
    if ours != theirs:
        raise MissingError(
            f"the kernels differ: ours {ours}, theirs {theirs}",
            hint="make clean, so that both are fetched anew",
        )
    return ours[-1]


def root_digest(keyset: Keyset) -> str:
    """Return the digest of our root as it was built last."""
    return str(
        LayoutRepository(hostfs_layout(keyset.root, "ordinary")).manifest("hostfs")[0].digest
    )


def unpack_root(keyset: Keyset, root: Path) -> None:
    """Unpack our own root into the new folder ``root``."""
    image = LayoutRepository(hostfs_layout(keyset.root, "ordinary"))
    descriptor, data = image.manifest("hostfs")
    layer = parse_manifest(data, name="hostfs", media_type=descriptor.media_type).layers[0]
    perform(squashfs.view_command(image.blob_path(layer.digest), root))


def furnish(root: Path, debian: Path, kernel: str, ready: str) -> None:
    """Add what a peer's boot needs, and a unit that runs the lines ``ready`` at its end."""
    modules = root / "usr/lib/modules" / kernel
    shutil.copytree(debian / "usr/lib/modules" / kernel, modules, symlinks=True)
    script(root, "ready", ready)
    # One that stays, as our own machines have one: else every boot would be a first one.
    (root / "etc/machine-id").write_text(f"{'b' * 32}\n")
    units = root / "usr/lib/systemd/system"
    (units / "bench-ready.service").write_text(_UNIT)
    (units / "multi-user.target.wants/bench-ready.service").symlink_to("../bench-ready.service")


def script(root: Path, name: str, lines: str) -> None:
    """Add a script for busybox, and busybox, to ``root``. Raises: MissingToolError."""
    busybox = find("busybox")
    if busybox is None:
        raise MissingToolError("busybox-static is not installed", hint="scripts/setup dev")
    folder = root / TOOLS
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(busybox, folder / "busybox")
    (folder / name).write_text(f"#!/{TOOLS}/busybox sh\n{lines}")
    (folder / name).chmod(0o755)


def ext4(root: Path, image: Path, label: str, *, slack: int = 160 << 20) -> None:
    """Pack ``root`` as a file system with ``slack`` bytes to spare."""
    used = int(run(["du", "-s", "-B1", root], timeout=TIMEOUT).text.split()[0])
    with image.open("wb") as file:
        file.truncate((used + used // 8 + slack) // _MIB * _MIB)
    run(["mkfs.ext4", "-q", "-F", "-L", label, "-d", root, image], timeout=TIMEOUT)


def disk(
    keyset: Keyset,
    own: Path,
    start: Start,
    parts: Sequence[Partition],
    path: Path,
    *,
    work: Path,
    size: int = 0,
) -> None:
    """Write the disk ``path`` as our own machines have theirs: GPT, an ESP with shim and the signed
    UKI, and the given partitions, each on a boundary of 1 MiB. ``size`` is the least it has."""
    stub = (own / bootimage.STUB_PATH).read_bytes()
    sections = {
        ".osrel": b"ID=debian\n",
        ".cmdline": start.command_line.encode() + b"\0",
        ".initrd": start.initrd,
        ".linux": start.kernel.read_bytes(),
    }
    unsigned, signed, shim = work / "unsigned.efi", work / "uki.efi", work / "shim.efi"
    unsigned.write_bytes(uki.assemble(stub, sections, sbat=bootimage.sbat_text(stub)))
    efi.sign_efi(unsigned, signed, keyset.key("uki-production"))
    bootkit.build_shim(bootkit.Anchored(keyset), own, shim, work=work)
    esp = work / "esp.img"
    files = {"EFI/BOOT/BOOTX64.EFI": shim, "EFI/BOOT/grubx64.efi": signed}
    tools.make_fat(esp, label="ESP", files=files, epoch=EPOCH, size=ESP_SIZE)
    specs = [sfdisk.PartitionSpec("esp", sfdisk.ESP, ESP_SIZE)]
    specs += [sfdisk.PartitionSpec(part.label, LINUX, _size(part)) for part in parts]
    with path.open("wb") as file:
        file.truncate(max(size, sum(spec.size for spec in specs) + 2 * _MIB))
    run(["sfdisk", "--quiet", path], input=sfdisk.script(specs).encode(), timeout=TIMEOUT)
    for image, offset in zip((esp, *(p.image for p in parts)), offsets(parts), strict=True):
        copy_into(image, path, offset)
    for made in (unsigned, signed, shim, esp):
        made.unlink()


def offsets(parts: Sequence[Partition]) -> list[int]:
    """Return where the ESP and each partition begin, in bytes."""
    found = [_MIB, _MIB + ESP_SIZE]
    for part in parts[:-1]:
        found.append(found[-1] + _size(part))
    return found


def copy_into(image: Path, disk: Path, offset: int) -> None:
    """Copy ``image`` into ``disk``, ``offset`` bytes (a multiple of 1 MiB) from its start."""
    run(
        ["dd", f"if={image}", f"of={disk}", "bs=1M", f"seek={offset // _MIB}",
         "conv=notrunc,sparse", "status=none"],
        timeout=TIMEOUT,
    )  # fmt: skip


def _size(part: Partition) -> int:
    return -(-part.image.stat().st_size // _MIB) * _MIB
