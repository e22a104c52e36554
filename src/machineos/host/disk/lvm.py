"""Logical volumes: the commands of ``lvm``, and its JSON output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from machineos.core.command import Command
from machineos.core.jsondoc import parse_json
from machineos.errors import DocumentError, Fault

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT = 120.0
# On a volume from its first moment until all of it is there, whatever it is called.
UNFINISHED = "machineos.unfinished"
# What all volumes share; no label has such a name.
POOL = "machine+pool"
# At boot udev is still busy: devices are looked for in /dev, and nodes are made by LVM itself. The
# metadata of the pool is read by the kernel only (the tools that check it are not shipped), and
# dm-integrity below it has authenticated every block.
_CONFIG = (
    "devices{obtain_device_list_from_udev=0 use_devicesfile=0} "
    "activation{udev_sync=0 udev_rules=0 monitoring=0} "
    'global{thin_check_executable=""}'
)
# For the metadata of the pool, its spare, and 1 % that repairs need.
_POOL_PERCENT = 97


@dataclass(frozen=True, slots=True)
class LogicalVolume:
    """A volume as LVM reports it; ``size`` in bytes."""

    size: int
    tags: frozenset[str] = frozenset()

    @property
    def unfinished(self) -> bool:
        """Whether it was begun and never finished."""
        return UNFINISHED in self.tags


@dataclass(frozen=True, slots=True)
class Group:
    """The volume group ``name`` on ``device``, its only physical volume.

    LVM is shown no other device: a group of the same name on a disk that somebody attached is
    neither used nor in the way.
    """

    name: str
    device: Path

    def command(self, command: str, *arguments: str) -> Command:
        """Return the call of an LVM command on this group's device."""
        argv = ("lvm", command, "--config", _CONFIG, "--devices", str(self.device), *arguments)
        return Command(argv, TIMEOUT)

    def create_commands(self) -> tuple[Command, ...]:
        """Return what makes ``device`` a physical volume, whatever it was, the group on it, and the
        pool in that. The pool zeroes what a volume first writes to; full, it fails at once."""
        full = ("--zero", "y", "--errorwhenfull", "y")
        return (
            self.command("pvcreate", "--yes", "-ff", str(self.device)),
            self.command("vgcreate", self.name, str(self.device)),
            self.command(
                "lvcreate", "--yes", "--type", "thin-pool", *full, "-n", POOL,
                "-l", f"{_POOL_PERCENT}%FREE", self.name,
            ),
        )  # fmt: skip

    def activate_command(self) -> Command:
        """Return what makes the volumes of the group available; it takes a second."""
        return self.command("vgchange", "--activate", "y", "--sysinit", self.name)

    def deactivate_command(self) -> Command:
        """Return what takes the volumes of the group away; none may be in use."""
        return self.command("vgchange", "--activate", "n", self.name)

    def report_command(self) -> Command:
        """Return what reports the volumes, sizes and tags; ``parse_volumes`` reads it."""
        columns = "lv_name,lv_size,lv_tags"
        report = ("--reportformat", "json", "--units", "b", "--nosuffix", "-o", columns)
        return self.command("lvs", *report, self.name)

    def create_volume_command(self, name: str, size: int) -> Command:
        """Return what makes a volume of ``size`` bytes, rounded up to extents, not finished.
        It takes room of the pool as it is written to."""
        tag = ("--addtag", UNFINISHED)
        return self.command(
            "lvcreate", "--yes", *tag, "-n", name, "-V", f"{size}b", "--thinpool", POOL, self.name,
        )  # fmt: skip

    def finish_volume_command(self, name: str) -> Command:
        """Return what says that a volume is whole; a second time it changes nothing."""
        return self.command("lvchange", "--deltag", UNFINISHED, f"{self.name}/{name}")

    def rename_volume_command(self, name: str, new: str) -> Command:
        """Return what renames a volume."""
        return self.command("lvrename", self.name, name, new)

    def remove_volume_command(self, name: str) -> Command:
        """Return what removes a volume and what is on it."""
        return self.command("lvremove", "--yes", f"{self.name}/{name}")


def parse_volumes(data: bytes) -> dict[str, LogicalVolume]:
    """Read the JSON report of ``lvs``, the pool left out. Raises: DocumentError."""
    body: Any = parse_json(data, name="lvs report")
    try:
        rows = body["report"][0]["lv"]
        return {row["lv_name"]: _parse_row(row) for row in rows if row["lv_name"] != POOL}
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DocumentError("lvs report", [Fault("report", 0, "has another shape")]) from error


def _parse_row(row: dict[str, Any]) -> LogicalVolume:
    tags = frozenset(tag for tag in row["lv_tags"].split(",") if tag)
    return LogicalVolume(int(row["lv_size"]), tags)
