"""Logical volumes, through ``lvm`` with JSON output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from machineos.core.jsondoc import parse_json
from machineos.core.run import run
from machineos.errors import DocumentError, Fault

if TYPE_CHECKING:
    from pathlib import Path

_TIMEOUT = 120.0
# At boot udev is still busy: devices are looked for in /dev, and nodes are made by LVM itself.
_CONFIG = (
    "--config",
    "devices{obtain_device_list_from_udev=0 use_devicesfile=0} "
    "activation{udev_sync=0 udev_rules=0}",
)


def create_group(device: Path, group: str) -> None:
    """Make ``device`` a physical volume and ``group`` on it. Raises: ToolError."""
    run(["lvm", "pvcreate", *_CONFIG, "--yes", "-ff", str(device)], timeout=_TIMEOUT)
    run(["lvm", "vgcreate", *_CONFIG, group, str(device)], timeout=_TIMEOUT)


def create_volume(group: str, name: str, size: int) -> None:
    """Make a volume of ``size`` bytes, rounded up to extents. Raises: ToolError."""
    run(
        [
            "lvm",
            "lvcreate",
            *_CONFIG,
            "--yes",
            "--wipesignatures",
            "y",
            "-n",
            name,
            "-L",
            f"{size}b",
            group,
        ],
        timeout=_TIMEOUT,
    )


def rename_volume(group: str, name: str, new: str) -> None:
    """Rename a volume. Raises: ToolError."""
    run(["lvm", "lvrename", *_CONFIG, group, name, new], timeout=_TIMEOUT)


def remove_volume(group: str, name: str) -> None:
    """Remove a volume and what is on it. Raises: ToolError."""
    run(["lvm", "lvremove", *_CONFIG, "--yes", f"{group}/{name}"], timeout=_TIMEOUT)


def activate(group: str) -> None:
    """Make the volumes of a group available. Raises: ToolError."""
    run(["lvm", "vgchange", *_CONFIG, "--activate", "y", "--sysinit", group], timeout=_TIMEOUT)


def volumes(group: str) -> dict[str, int]:
    """Return the volumes of a group and their sizes in bytes. Raises: ToolError, DocumentError."""
    result = run(
        ["lvm", "lvs", *_CONFIG, "--reportformat", "json", "--units", "b", "--nosuffix",
         "-o", "lv_name,lv_size", group],
        timeout=_TIMEOUT,
    )  # fmt: skip
    return parse_volumes(result.stdout)


def parse_volumes(data: bytes) -> dict[str, int]:
    """Read the JSON report of ``lvs``. Raises: DocumentError."""
    body: Any = parse_json(data, name="lvs report")
    try:
        rows = body["report"][0]["lv"]
        return {row["lv_name"]: int(row["lv_size"]) for row in rows}
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise DocumentError("lvs report", [Fault("report", 0, "has another shape")]) from error
