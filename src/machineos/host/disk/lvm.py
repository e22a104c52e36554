"""Logical volumes, through ``lvm`` with JSON output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from machineos.core.jsondoc import parse_json
from machineos.core.run import Running, run
from machineos.errors import DocumentError, Fault

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT = 120.0
# At boot udev is still busy: devices are looked for in /dev, and nodes are made by LVM itself.
_CONFIG = (
    "devices{obtain_device_list_from_udev=0 use_devicesfile=0} activation{udev_sync=0 udev_rules=0}"
)


@dataclass(frozen=True, slots=True)
class Group:
    """The volume group ``name`` on ``device``, its only physical volume.

    LVM is shown no other device: a group of the same name on a disk that somebody attached is
    neither used nor in the way.
    """

    name: str
    device: Path

    def argv(self, command: str, *arguments: str) -> list[str]:
        """Return the call of an LVM command on this group's device."""
        return ["lvm", command, "--config", _CONFIG, "--devices", str(self.device), *arguments]

    def create(self) -> None:
        """Make ``device`` a physical volume and the group on it. Raises: ToolError."""
        self._run("pvcreate", "--yes", "-ff", str(self.device))
        self._run("vgcreate", self.name, str(self.device))

    def activate(self) -> None:
        """Make the volumes of the group available. Raises: ToolError."""
        self.begin_activation().wait(TIMEOUT)

    def begin_activation(self) -> Running:
        """Begin to make the volumes available, which takes a second. Raises: ToolError."""
        return Running(self.argv("vgchange", "--activate", "y", "--sysinit", self.name))

    def volumes(self) -> dict[str, int]:
        """Return the volumes and their sizes in bytes. Raises: ToolError, DocumentError."""
        report = ("--reportformat", "json", "--units", "b", "--nosuffix", "-o", "lv_name,lv_size")
        return parse_volumes(self._run("lvs", *report, self.name))

    def create_volume(self, name: str, size: int) -> None:
        """Make a volume of ``size`` bytes, rounded up to extents. Raises: ToolError."""
        self._run(
            "lvcreate", "--yes", "--wipesignatures", "y", "-n", name, "-L", f"{size}b", self.name
        )

    def rename_volume(self, name: str, new: str) -> None:
        """Rename a volume. Raises: ToolError."""
        self._run("lvrename", self.name, name, new)

    def remove_volume(self, name: str) -> None:
        """Remove a volume and what is on it. Raises: ToolError."""
        self._run("lvremove", "--yes", f"{self.name}/{name}")

    def _run(self, command: str, *arguments: str) -> bytes:
        return run(self.argv(command, *arguments), timeout=TIMEOUT).stdout


def parse_volumes(data: bytes) -> dict[str, int]:
    """Read the JSON report of ``lvs``. Raises: DocumentError."""
    body: Any = parse_json(data, name="lvs report")
    try:
        rows = body["report"][0]["lv"]
        return {row["lv_name"]: int(row["lv_size"]) for row in rows}
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise DocumentError("lvs report", [Fault("report", 0, "has another shape")]) from error
