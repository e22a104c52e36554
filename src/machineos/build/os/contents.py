"""What each shipped artifact holds of this package: whole rooms, and nothing beside them.

The tables are the only place that says so. What an artifact may import is proved from them: the
contract of the same name in ``pyproject.toml`` has the same rooms (``tests/test_layers.py``). The
code that makes an artifact is not listed: it is what its maker imports.
"""

from __future__ import annotations

import hashlib
import shutil
from typing import TYPE_CHECKING

from machineos.build.os.imports import followed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

BASE = ("__init__.py", "errors.py", "core")
INITRD = (
    *BASE, "host/kernel", "host/disk", "host/tpm", "oci/model", "oci/layout", "trust/verify",
    "trust/measure", "trust/seal", "trust/wrap", "document", "state/images", "state/volumes",
    "boot",
)  # fmt: skip
APPLIANCE = (
    *BASE, "host/kernel", "host/disk", "host/efi", "host/unit", "oci", "trust/verify", "trust/wrap",
    "document", "state", "install", "service", "daemon", "cli/app.py", "cli/completion.py",
    "cli/debug.py", "cli/group.py", "cli/options.py", "cli/shape.py", "cli/operator",
)  # fmt: skip
ARTIFACTS = {"initrd": INITRD, "appliance": APPLIANCE}


def sources(package: Path, rooms: Sequence[str]) -> tuple[Path, ...]:
    """Return every Python file of ``rooms``, sorted, with the ``__init__.py`` of folders above.

    ``package`` is the folder of this package.
    """
    found: set[Path] = set()
    for room in rooms:
        path = package / room
        found |= {path} if path.is_file() else set(path.rglob("*.py"))
        found |= {above / "__init__.py" for above in path.parents if above.is_relative_to(package)}
    return tuple(sorted(found))


def digest(package: Path, makers: Sequence[str], rooms: Sequence[str] = ()) -> str:
    """Return a digest (hex) over names and content of all files that an artifact depends on.

    These are the files of ``rooms``, which it holds, and those that make it: ``makers`` with all
    that they import. Each is read once.
    """
    files = package.rglob("*.py")
    read = {path.relative_to(package).as_posix(): path.read_bytes() for path in files}
    held = {path.relative_to(package).as_posix() for path in sources(package, rooms)}
    hasher = hashlib.sha256()
    for name in sorted(held | followed(read, makers)):
        hasher.update(f"{name} {len(read[name])} ".encode() + read[name])
    return hasher.hexdigest()


def copy(package: Path, rooms: Sequence[str], target: Path) -> None:
    """Copy the files of ``rooms`` into the new folder ``target``."""
    for path in sources(package, rooms):
        place = target / path.relative_to(package)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
