"""What has to be inside the images that a machine starts from: hostfs and bootkit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from machineos.document.rules.images import BOOT_FILES
from machineos.document.rules.rule import Rule
from machineos.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Found = Iterator[tuple[str, str]]

# In the bootkit's volume of modules, and the mount points in the root.
SHOWN = ("/usr/lib/modules", "/usr/lib/firmware")
SHIM, KERNEL = "/bootkit/shim.efi", "/bootkit/kernel.efi"
INIT = "/usr/lib/systemd/systemd"


class Part(msgspec.Struct, frozen=True):
    """A folder, or a file, that an image needs."""

    kind: Literal["folder", "file"]
    path: str


def needed(service_name: str, layer: int) -> tuple[Part, ...]:
    """Return what this layer of the image of a service needs for a machine to start from it."""
    folders = tuple(Part("folder", path) for path in SHOWN)
    if service_name == "hostfs":
        return (*folders, Part("file", INIT))
    if service_name != "bootkit":
        return ()
    return (Part("file", SHIM), Part("file", KERNEL)) if layer == BOOT_FILES else folders


def _missing(missing: Iterable[Part]) -> Found:
    for part in missing:
        yield "", f"has no {part.kind} {part.path}"


# What is not there, of what is needed. An image has to be looked into for this.
BOOTABLE: Rule[Iterable[Part]] = Rule(
    "image-bootable",
    "The images that a machine starts from have what it starts.",
    ("publish", "verify", "boot"),
    _missing,
    ArchiveError,
    "build it with `mosb hostfs build` or `mosb bootkit build`",
)


def require_root_part(part: Part, *, there: bool) -> None:
    """Raise ArchiveError unless ``part`` is in the root that a boot has mounted."""
    BOOTABLE.require(() if there else (part,), "the root file system")
