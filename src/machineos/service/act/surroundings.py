"""What the service manager needs of the host it runs on, handed in by the daemon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from machineos.host.unit.systemd import UnitState
    from machineos.oci.model.documents import Descriptor


class Volumes(Protocol):
    """Block devices whose every block the kernel checks (dm-verity)."""

    def open(self, layer: Descriptor, *, blob: Path, signature: Path) -> Path:
        """Return the device; one that is open already is used again if its root hash is the same.

        Raises: VerificationError, ConflictError, ToolError.
        """
        ...

    def close(self, digest: str) -> None:
        """Give the device of a layer (its digest in hex) up; one that is not open is no error.

        Raises: ToolError (in use).
        """
        ...


class Units(Protocol):
    """The part of systemd that is needed (``host.systemd.Systemctl``)."""

    def reload(self) -> None:
        """Read the unit files again."""
        ...

    def reset_failed(self, units: Sequence[str]) -> None:
        """Forget how often ``units`` failed, which would keep them from starting."""
        ...

    def start(self, units: Sequence[str]) -> None:
        """Queue the start of ``units``."""
        ...

    def stop(self, units: Sequence[str]) -> None:
        """Stop ``units`` and wait for it."""
        ...

    def show(self, units: Sequence[str]) -> dict[str, UnitState]:
        """Return the state of ``units``."""
        ...


@dataclass(frozen=True, slots=True)
class Folders:
    """Where things are kept: ``run`` is ours alone, ``units`` belongs to systemd."""

    run: Path
    units: Path

    @property
    def images(self) -> Path:
        """Image file systems, one per layer digest, owners as in the image; for root only."""
        return self.run / "images"

    @property
    def roots(self) -> Path:
        """Roots of containers, one per service, owners shifted."""
        return self.run / "roots"

    @property
    def lxc(self) -> Path:
        """LXC's files, one folder per service."""
        return self.run / "lxc"

    def make(self) -> None:
        """Make them; containers must be able to pass through to their roots, and nowhere else."""
        self.units.mkdir(parents=True, exist_ok=True)
        modes = {self.run: 0o755, self.roots: 0o711, self.images: 0o700, self.lxc: 0o711}
        for path, mode in modes.items():
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(mode)
