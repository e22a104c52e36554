"""The first commit of a machine's configuration, decided. Touches nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from machineos.core.steps import Step
from machineos.document.state import system

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from machineos.core.secret import Secret
    from machineos.document.verify.published import Fetched

FIRST_MESSAGE = "Initial commit"
Files = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class CreateStore(Step[str]):
    """Make the store in ``folder``, durably; its first commit, at the time ``seconds``, holds
    ``files`` by name. The answer is the commit's name."""

    point: ClassVar[str] = "first-commit"
    folder: Path
    files: Files
    message: str
    seconds: int


@dataclass(frozen=True, slots=True)
class WriteBeside(Step[None]):
    """Write a file of the machine's own beside the store, durably: no commit holds it, so no going
    back to one changes it."""

    point: ClassVar[str] = "beside-the-store"
    folder: Path
    name: str
    data: Secret
    mode: int

    @property
    def where(self) -> str:
        """The file."""
        return self.name


def first_files(fetched: Fetched) -> Files:
    """Return what the first commit of a machine holds: the system file with the id ranges of its
    groups, and the document with what proves it. Raises: DocumentError, ConflictError."""
    verified = fetched.verified
    merged = system.merge([verified])
    stored = system.system_file(merged, system.assign_idmaps({}, merged.groups))
    document, signature, certificate = system.document_files(verified.sha256)
    return (
        (system.SYSTEM_FILE, stored.to_bytes()),
        (document, verified.data),
        (signature, fetched.signature),
        (certificate, fetched.certificate_pem),
    )


class ConfigHost(Protocol):
    """What the steps of this room need of a machine."""

    def create_store(
        self, folder: Path, files: Mapping[str, bytes], *, message: str, seconds: int
    ) -> str:
        """See ``CreateStore``. Raises: ConflictError (there is a store already)."""
        ...

    def write_beside(self, folder: Path, name: str, data: Secret, *, mode: int) -> None:
        """See ``WriteBeside``. Raises: OSError, SpaceError."""
        ...


CALLS: Mapping[type[Step[Any]], Callable[[ConfigHost, Any], object]] = {
    CreateStore: lambda host, step: host.create_store(
        step.folder, dict(step.files), message=step.message, seconds=step.seconds
    ),
    WriteBeside: lambda host, step: host.write_beside(
        step.folder, step.name, step.data, mode=step.mode
    ),
}
