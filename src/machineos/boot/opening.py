"""What the volumes are on, opened beside everything else that a boot does."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.core.files import list_bounded
from machineos.errors import ToolError
from machineos.host.disk import lvm, tools
from machineos.state.volumes import storage

if TYPE_CHECKING:
    from machineos.core.secret import Secret

GROUP = "machine-data"  # made by the installer
_MOST = 4096  # volumes


class Opening:
    """A device with integrity and the volume group on it, on their way in a thread of its own; it
    overwrites the key."""

    def __init__(self, device: Path, key: Secret, dev: Path = Path("/dev")) -> None:
        self._device = device
        self._key = key
        self._folder = dev / GROUP
        self._failed: ToolError | None = None
        self._thread = threading.Thread(target=self._work, name="storage", daemon=True)
        self._thread.start()

    def wait(self) -> tuple[str, ...]:
        """Return the names of the volumes once they are there. Raises: ToolError."""
        self._thread.join()
        if self._failed is not None:
            raise self._failed
        return list_bounded(self._folder, _MOST)

    def _work(self) -> None:
        try:
            storage.open_integrity(self._key, self._device)
            tools.activate_group(lvm.Group(GROUP, storage.DATA))
        except ToolError as error:
            self._failed = error
        finally:
            self._key.wipe()
