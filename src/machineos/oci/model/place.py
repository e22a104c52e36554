"""Where a published manifest is, as people write it for ``trust launch`` and ``mosctl install``.

Owns the spellings ``[docker://]host[:port]/path:tag`` and ``oci:DIR:path:tag``. Invariant: name and
tag are those of the distribution specification, and exactly one of host and folder is set.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from machineos.errors import DocumentError, Fault
from machineos.oci.model.reference import Reference, RegistryLocation, check_name, check_tag

_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Place:
    """The tag of a manifest in the repository ``name``; ``plain_http`` allows its registry to do
    without TLS."""

    at: RegistryLocation
    name: str
    tag: str
    plain_http: bool = False

    def __post_init__(self) -> None:
        check_name(self.name)
        check_tag(self.tag)

    @classmethod
    def parse(cls, text: str, *, plain_http: bool) -> Place:
        """Read either spelling. Raises: DocumentError."""
        if not text.startswith("oci:"):
            return cls.parse_remote(text, plain_http=plain_http)
        folder, _, rest = text.removeprefix("oci:").partition(":")
        name, _, tag = rest.rpartition(":")
        if not folder or not name or not tag:
            raise _fault(text, "is not oci:DIR:path:tag")
        return cls(RegistryLocation(folder=Path(folder)), name, tag)

    @classmethod
    def parse_remote(cls, text: str, *, plain_http: bool) -> Place:
        """Read ``[docker://]host[:port]/path:tag``. Raises: DocumentError."""
        reference = Reference.parse(text.removeprefix("docker://"))
        if not reference.host or not reference.tag:
            raise _fault(text, "is not host[:port]/path:tag")
        if reference.digest is not None:
            raise _fault(text, "names a digest: a manifest is named by its tag, and verified")
        at = RegistryLocation(host=reference.host)
        return cls(at, reference.name, reference.tag, plain_http)

    @property
    def url(self) -> str:
        """``host/path:tag``, empty when it is in a folder."""
        return f"{self.at.host}/{self.name}:{self.tag}" if self.at.host else ""

    @property
    def local(self) -> str:
        """``oci:DIR:path:tag``, empty when it is on a registry."""
        return f"{self.at}:{self.name}:{self.tag}" if self.at.folder is not None else ""


def _fault(text: str, message: str) -> DocumentError:
    return DocumentError(repr(text[:_SHOWN]), [Fault("", 0, message)])
