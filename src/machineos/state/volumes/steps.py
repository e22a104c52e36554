"""File systems and the configuration volume, as steps. Touches nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from machineos.core.steps import Step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from machineos.core.secret import Secret

TABLE = "partition table"  # a fact that holds: what was on the disk before is given up
Kind = Literal["ext4", "vfat"]


@dataclass(frozen=True, slots=True)
class MakeFilesystem(Step[None]):
    """Make a file system on ``device``, durably; what was on it is lost."""

    point: ClassVar[str] = "filesystem"
    after: ClassVar[frozenset[str]] = frozenset({TABLE})
    kind: Kind
    device: Path
    label: str

    @property
    def where(self) -> str:
        """The label."""
        return self.label


@dataclass(frozen=True, slots=True)
class Mount(Step[None]):
    """Mount ``device`` at ``folder``, which is made; nothing on it can be executed."""

    device: Path
    folder: Path
    kind: Kind
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Unmount(Step[None]):
    """Unmount what is at ``folder``; all that was written to it is on the disk then, and the kernel
    remembers nothing of it."""

    folder: Path


@dataclass(frozen=True, slots=True)
class FormatConfig(Step[None]):
    """Make the configuration volume on ``device``, durably; what was on it is lost."""

    point: ClassVar[str] = "configuration-volume"
    after: ClassVar[frozenset[str]] = frozenset({TABLE})
    key: Secret
    device: Path
    uuid: str


@dataclass(frozen=True, slots=True)
class UnlockConfig(Step[Path]):
    """Open the configuration volume that was just made; the answer is the device to mount."""

    key: Secret
    device: Path


@dataclass(frozen=True, slots=True)
class LockConfig(Step[None]):
    """Close the configuration volume."""


class VolumeHost(Protocol):
    """What the steps of this room need of a machine."""

    def make_filesystem(self, kind: Kind, device: Path, *, label: str) -> None:
        """See ``MakeFilesystem``. Raises: ToolError."""
        ...

    def mount(self, device: Path, folder: Path, kind: Kind, *, read_only: bool) -> None:
        """See ``Mount``. Raises: ToolError, MissingError."""
        ...

    def unmount(self, folder: Path) -> None:
        """See ``Unmount``. Raises: ToolError (busy, not mounted)."""
        ...

    def format_config(self, key: Secret, device: Path, *, uuid: str) -> None:
        """See ``FormatConfig``. Raises: ToolError."""
        ...

    def unlock_config(self, key: Secret, device: Path) -> Path:
        """See ``UnlockConfig``. Raises: VerificationError."""
        ...

    def lock_config(self) -> None:
        """See ``LockConfig``. Raises: ToolError."""
        ...


CALLS: Mapping[type[Step[Any]], Callable[[VolumeHost, Any], object]] = {
    MakeFilesystem: lambda host, step: host.make_filesystem(
        step.kind, step.device, label=step.label
    ),
    Mount: lambda host, step: host.mount(
        step.device, step.folder, step.kind, read_only=step.read_only
    ),
    Unmount: lambda host, step: host.unmount(step.folder),
    FormatConfig: lambda host, step: host.format_config(step.key, step.device, uuid=step.uuid),
    UnlockConfig: lambda host, step: host.unlock_config(step.key, step.device),
    LockConfig: lambda host, _: host.lock_config(),
}
