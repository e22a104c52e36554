"""Which disks are in use, from what a developer's machine and a server said, and from this one."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from machineos.core.run import run
from machineos.errors import ToolError
from machineos.host.disk.inuse import claimed, look
from machineos.host.disk.usage import Block, Mounted, Usage, parse_swaps, why_not
from machineos.host.kernel.mount import parse_mountinfo
from waiting import PATIENCE

# Recorded: a laptop with LUKS and LVM, a server with RAID 1, btrfs on two disks, a stick.
MOUNTS = r"""
29 1 254:1 / / rw,relatime shared:1 - ext4 /dev/mapper/vg-root rw,errors=remount-ro
41 29 259:1 / /boot/efi rw,relatime shared:24 - vfat /dev/nvme0n1p1 rw,fmask=0077
96 29 0:48 /@home /home rw,relatime shared:50 - btrfs /dev/sdc1 rw,space_cache=v2
99 29 8:48 / /media/me/My\040Stick rw,nosuid,nodev - iso9660 /dev/sdd ro
24 29 0:22 / /proc rw,nosuid,nodev,noexec shared:12 - proc proc rw
""".lstrip()
SWAPS = (
    "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
    "/dev/sdb2                               partition\t1000\t\t0\t\t-2\n"
    "/var/my\\040swap                         file\t\t1000\t\t0\t\t-3\n"
)
BLOCKS = (
    Block("nvme0n1", "259:0", "nvme0n1"),
    Block("nvme0n1p1", "259:1", "nvme0n1"),
    Block("nvme0n1p3", "259:3", "nvme0n1", ("dm-0 (crypt)",)),
    Block("dm-0", "254:0", "dm-0", ("dm-1 (vg-root)",)),
    Block("dm-1", "254:1", "dm-1"),
    Block("sda", "8:0", "sda", ("md0",)),
    Block("sdb", "8:16", "sdb"),
    Block("sdb2", "8:18", "sdb"),
    Block("sdc", "8:32", "sdc"),
    Block("sdc1", "8:33", "sdc"),
    Block("sdd", "8:48", "sdd"),
    Block("sde", "8:64", "sde"),
    Block("sde1", "8:65", "sde"),
    Block("sdf", "8:80", "sdf"),
)


def mounted(text: str) -> tuple[Mounted, ...]:
    return tuple(Mounted(one.device, one.source, one.target) for one in parse_mountinfo(text))


USAGE = Usage(
    BLOCKS,
    mounted(MOUNTS),
    parse_swaps(SWAPS),
    {"sde": "is used by a program, as a whole or a part of it", "sdf": ""},
)


@pytest.mark.parametrize(
    ("disk", "reasons"),
    [
        (
            "nvme0n1",
            ("nvme0n1p1 is mounted at /boot/efi", "nvme0n1p3 is part of dm-0 (crypt)"),
        ),
        ("sda", ("sda is part of md0",)),
        ("sdb", ("sdb2 is swap space",)),
        ("sdc", ("sdc1 is mounted at /home",)),
        ("sdd", ("sdd is mounted at /media/me/My Stick",)),
        ("sde", ("sde is used by a program, as a whole or a part of it",)),
        ("sdf", ()),
        ("sdg", ("sdg was not looked at",)),
    ],
)
def test_why_a_disk_is_in_use(disk: str, reasons: tuple[str, ...]) -> None:
    assert USAGE.of(disk) == reasons


def test_a_disk_with_many_mounts_is_one_line() -> None:
    lines = "".join(f"2{n} 1 8:80 / /mnt/{n} rw - ext4 /dev/sdf rw\n" for n in range(9))
    usage = Usage(BLOCKS, mounted(lines), (), {"sdf": ""})
    assert len(usage.of("sdf")) == 5
    assert usage.of("sdf")[-1] == "and 5 more"


def test_swap_space() -> None:
    assert parse_swaps(SWAPS) == (Path("/dev/sdb2"), Path("/var/my swap"))
    assert parse_swaps("") == ()
    assert parse_swaps("Filename Type\n\n") == ()


def test_what_cannot_be_opened_is_in_use() -> None:
    busy = OSError(errno.EBUSY, os.strerror(errno.EBUSY))
    assert why_not(busy) == "is used by a program, as a whole or a part of it"
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    assert why_not(denied) == "cannot be opened: Permission denied"
    assert claimed(Path("/dev/machineos-none")) == "cannot be opened: No such file or directory"
    assert claimed(Path("/dev/null")) == ""


def test_a_tree_like_sysfs(tmp_path: Path) -> None:
    def add(path: str, number: str, *, partition: bool = False) -> Path:
        folder = tmp_path / "devices" / path
        (folder / "holders").mkdir(parents=True)
        (folder / "dev").write_text(f"{number}\n")
        if partition:
            (folder / "partition").write_text("1\n")
        (block / folder.name).symlink_to(folder)
        return folder

    block = tmp_path / "class/block"
    block.mkdir(parents=True)
    add("pci0/ata1/block/null", "8:0")
    part = add("pci0/ata1/block/null/null1", "8:1", partition=True)
    (add("virtual/block/dm-0", "254:0") / "dm").mkdir()
    (block / "dm-0/dm/name").write_text("vg-root\n")
    (part / "holders/dm-0").symlink_to(block / "dm-0")
    proc = tmp_path / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "self/mountinfo").write_text("20 1 8:1 / /mnt rw - ext4 /dev/x rw\n")
    usage = look([Path("/dev/null")], block, proc)
    assert usage.swaps == ()
    assert usage.of("null") == ("null1 is mounted at /mnt", "null1 is part of dm-0 (vg-root)")
    (proc / "swaps").write_text(SWAPS.replace("sdb2", "null"))
    (proc / "self/mountinfo").write_text("")
    assert look([Path("/dev/null")], block, proc).of("null")[0] == "null is swap space"
    (proc / "self/mountinfo").write_text("not a table\n")
    with pytest.raises(ToolError, match="mountinfo"):
        look([], block, proc)


@pytest.mark.system
def test_a_device_that_somebody_has_for_himself(tmp_path: Path) -> None:
    """What no list tells: the kernel does, and lets the device go when it is closed."""
    image = tmp_path / "disk"
    image.write_bytes(bytes(1 << 20))
    loop = Path(run(["losetup", "--find", "--show", str(image)], timeout=PATIENCE).text)
    try:
        assert claimed(loop) == ""
        descriptor = os.open(loop, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC)
        assert claimed(loop) == "is used by a program, as a whole or a part of it"
        assert look([loop]).of(loop.name) == (
            f"{loop.name} is used by a program, as a whole or a part of it",
        )
        os.close(descriptor)
        assert claimed(loop) == ""
        assert look([loop]).of(loop.name) == ()
    finally:
        run(["losetup", "--detach", str(loop)], timeout=PATIENCE)
