"""Logical volumes in one thin pool: the commands of ``lvm``, and its JSON output.

A volume takes of the pool what is written to it. No more is promised than there is: who makes one
asks ``Report.room_for`` before. A pool that is full all the same answers with errors, and does not
wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from machineos.core.command import Command
from machineos.core.jsondoc import parse_json
from machineos.errors import DocumentError, Fault

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT = 120.0
# On a volume from its first moment until all of it is there, whatever it is called.
UNFINISHED = "machineos.unfinished"
POOL = "pool"
# The machine's own log: nobody else is promised its room, whether it was made already or not.
LOG = "machine-log"
LOG_LIMIT = 1 << 30
_EXTENT = 4 << 20
_LOG_SHARE = 16  # of the pool, one part in as many
# In percent of the group; the rest is for the pool's own notes and for those of a mirror.
_POOL_SHARE = 95
# At boot udev is still busy: devices are looked for in /dev, and nodes are made by LVM itself. The
# pool's notes are checked by the kernel as it reads them (and by dm-integrity below).
_CONFIG = (
    "devices{obtain_device_list_from_udev=0 use_devicesfile=0} "
    "activation{udev_sync=0 udev_rules=0 monitoring=0} "
    'global{thin_check_executable="" thin_repair_executable="" thin_dump_executable=""}'
)


class LogicalVolume(msgspec.Struct, frozen=True):
    """A volume as LVM reports it; ``size`` in bytes."""

    size: int
    tags: frozenset[str] = frozenset()

    @property
    def unfinished(self) -> bool:
        """Whether it was begun and never finished."""
        return UNFINISHED in self.tags


class Report(msgspec.Struct, frozen=True):
    """The volumes by name, and the size of the pool that they are in (bytes)."""

    volumes: dict[str, LogicalVolume]
    pool: int

    def room_for(self, name: str) -> int:
        """Return how many bytes may be promised to the volume ``name``, which is not there yet:
        neither another's nor, unless it is that, the log's."""
        log = 0 if any(map(_is_log, (name, *self.volumes))) else log_size(self.pool)
        return self.pool - log - sum(volume.size for volume in self.volumes.values())


class Group(msgspec.Struct, frozen=True):
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
        """Return what makes ``device`` a physical volume, whatever it was, the group on it and the
        pool in that. A new piece of a volume is zero, whoever had it before."""
        return (
            self.command("pvcreate", "--yes", "-ff", str(self.device)),
            self.command("vgcreate", self.name, str(self.device)),
            self.command(
                "lvcreate", "--yes", "--type", "thin-pool", "-n", POOL, "-l", f"{_POOL_SHARE}%VG",
                "--zero", "y", "--poolmetadataspare", "n", self.name,
            ),
            self.command("lvchange", "--errorwhenfull", "y", f"{self.name}/{POOL}"),
        )  # fmt: skip

    def activate_command(self) -> Command:
        """Return what makes the volumes of the group available; it takes a second."""
        return self.command("vgchange", "--activate", "y", "--sysinit", self.name)

    def deactivate_command(self) -> Command:
        """Return what takes them down."""
        return self.command("vgchange", "--activate", "n", self.name)

    def report_command(self) -> Command:
        """Return what reports the volumes, sizes and tags; ``parse_report`` reads it."""
        columns = "lv_name,lv_size,lv_tags,pool_lv"
        report = ("--reportformat", "json", "--units", "b", "--nosuffix", "-o", columns)
        return self.command("lvs", *report, self.name)

    def create_volume_command(self, name: str, size: int) -> Command:
        """Return what makes a volume of ``size`` bytes, rounded up to extents, not finished."""
        return self.command(
            "lvcreate", "--yes", "--type", "thin", "--addtag", UNFINISHED, "-n", name,
            "-V", f"{size}b", "--thinpool", POOL, self.name,
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


def log_size(pool: int) -> int:
    """Return what is kept for the machine's own log in a pool of so many bytes, whole extents."""
    return min(pool // _LOG_SHARE, LOG_LIMIT) // _EXTENT * _EXTENT


def _is_log(name: str) -> bool:
    """Return whether it is the volume of the log, finished or not."""
    return name.partition("+")[0] == LOG


def parse_report(data: bytes) -> Report:
    """Read the JSON report of ``lvs``. Raises: DocumentError (of another shape, or no pool)."""
    body: Any = parse_json(data, name="lvs report")
    try:
        rows = body["report"][0]["lv"]
        (pool,) = (int(row["lv_size"]) for row in rows if row["lv_name"] == POOL)
        volumes = {row["lv_name"]: _parse_row(row) for row in rows if row["pool_lv"] == POOL}
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DocumentError("lvs report", [Fault("report", 0, "has another shape")]) from error
    return Report(volumes, pool)


def _parse_row(row: dict[str, Any]) -> LogicalVolume:
    tags = frozenset(tag for tag in row["lv_tags"].split(",") if tag)
    return LogicalVolume(int(row["lv_size"]), tags)
