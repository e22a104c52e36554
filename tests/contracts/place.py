"""What the checks of a contract are given: a host in a place, and what is seen from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from machineos.core.digest import Digest
    from machineos.oci.model.atomfs import Layer
    from machineos.service.plan.host import Host
    from machineos.service.plan.model import Folders

FOLDER, FIFO = "folder", "fifo"
PASSWD = b"root:x:0:0:r:/root:/bin/sh\n"
# The image of every place: a folder, a FIFO, the content of a file, or ("link", where it leads).
TREE: dict[str, str | bytes | tuple[str, str]] = {
    "/proc": FOLDER,
    "/etc": FOLDER,
    "/etc/passwd": PASSWD,
    "/etc/fifo": FIFO,
    "/etc/there": ("link", "passwd"),
    "/etc/big": b"x" * ((1 << 20) + 1),
    "/etc/full": b"x" * (1 << 20),
    "/away": ("link", "/"),
}


class Place(Protocol):
    """A host to check, and what can be seen of it from outside."""

    @property
    def host(self) -> Host: ...
    @property
    def folders(self) -> Folders: ...
    @property
    def lines(self) -> list[str]:
        """What was said."""
        ...

    @property
    def layer(self) -> Layer:
        """A layer with TREE."""
        ...

    @property
    def blob(self) -> Path: ...
    @property
    def signature(self) -> Path: ...

    def put_blob(self, data: bytes) -> Digest:
        """Put a blob into the image store."""
        ...

    def mode(self, path: Path) -> int:
        """Return the mode of a file or folder."""
        ...

    def names(self, folder: Path) -> list[Path]:
        """Return what is in a folder."""
        ...

    def owner(self, path: Path) -> tuple[int, int]:
        """Return the owner of a folder."""
        ...

    def options(self, path: Path) -> list[frozenset[str]]:
        """Return the options of each mount at ``path``."""
        ...

    def kind(self, path: Path) -> str:
        """Return the type of the file system at ``path``."""
        ...

    def rules(self) -> str:
        """Return the nftables rules."""
        ...

    def addresses(self, bridge: str) -> set[str]:
        """Return the addresses of a bridge that is up."""
        ...

    def switch(self, name: str) -> str:
        """Return a network setting of the kernel."""
        ...


def refuses(kind: type[Exception], act: Callable[[], object], *words: str) -> None:
    """Fail unless ``act`` raises exactly this, with these words in the message."""
    try:
        act()
    except kind as error:
        assert type(error) is kind, repr(error)
        assert all(word in str(error) for word in words), str(error)
    else:
        raise AssertionError(f"not refused with {kind.__name__}")
