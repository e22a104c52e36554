"""Where a launch installs from, as this host and as the guest see it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from machineos.errors import UsageError
from machineos.oci.model.reference import Reference

# What a guest on QEMU's user network calls the host it runs on, and what the host calls itself.
_GUEST_VIEW, _HOST_VIEW = "10.0.2.2", "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Place:
    """A published manifest: in a folder of OCI layouts, or on the registry ``host``."""

    name: str
    tag: str
    host: str = ""
    folder: Path | None = None
    plain_http: bool = False

    @classmethod
    def parse(cls, text: str, *, plain_http: bool) -> Place:
        """Read ``oci:DIR:path:tag`` or ``[docker://]host[:port]/path:tag``.

        Raises: UsageError, DocumentError.
        """
        if text.startswith("oci:"):
            folder, _, rest = text.removeprefix("oci:").partition(":")
            name, _, tag = rest.rpartition(":")
            if not folder or not name or not tag:
                raise UsageError(f"{text!r} is not oci:DIR:path:tag")
            return cls(name, tag, folder=Path(folder))
        reference = Reference.parse(text.removeprefix("docker://"))
        if not reference.host or not reference.tag:
            raise UsageError(f"{text!r} is not host:port/path:tag")
        return cls(reference.name, reference.tag, reference.host, plain_http=plain_http)

    @property
    def url(self) -> str:
        """What the installer in the guest is told; empty when it comes on the medium."""
        return f"{self.host}/{self.name}:{self.tag}" if self.host else ""

    @property
    def local(self) -> str:
        """What goes onto the medium (``oci:DIR:path:tag``), empty for a registry."""
        return f"oci:{self.folder}:{self.name}:{self.tag}" if self.folder else ""

    @property
    def seen_from_here(self) -> str:
        """The registry's host as this host calls it."""
        host, colon, port = self.host.partition(":")
        seen = _HOST_VIEW if host == _GUEST_VIEW else host
        return f"{seen}{colon}{port}"
