"""AppArmor: give the kernel profiles that were compiled when the image was built (apparmor(7)).

Shared with the initrd: standard library only.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from machineos.errors import BootError, ToolError
from machineos.host.kernel.securityfs import SECURITYFS

if TYPE_CHECKING:
    from pathlib import Path


def load(compiled: bytes, *, securityfs: Path = SECURITYFS) -> None:
    """Load profiles: what apparmor_parser writes for the features of this very kernel.

    Raises: BootError (no AppArmor in this kernel), ToolError (refused).
    """
    file = securityfs / "apparmor/.load"
    if not file.exists():
        raise BootError("the kernel runs without AppArmor; its profiles cannot be loaded")
    try:
        file.write_bytes(compiled)
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, "?")
        raise ToolError(f"the kernel refuses the AppArmor profiles: {code}") from error
