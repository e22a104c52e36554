"""Which image of an archive is meant, by the names that containers-transports(5) gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from machineos.core.digest import Digest, is_digest
from machineos.errors import DocumentError, Fault, MachineOSError, MissingError
from machineos.oci.model.documents import REF_NAME
from machineos.oci.model.reference import DEFAULT_TAG, Reference
from machineos.oci.registry import hub

if TYPE_CHECKING:
    from collections.abc import Sequence

    from machineos.oci.model.documents import Descriptor

_FULL_NAME = "io.containerd.image.name"  # an index entry of Docker's; its ref.name is only the tag
_SHOWN = 20


class Named(NamedTuple):
    """An image of an archive: what tells it from the others, and what it is called."""

    identity: str
    names: list[str]


def select(listed: Sequence[Named], selector: str, name: str) -> int:
    """Return the place of the image that ``selector`` means in the archive ``name``.

    Raises: MissingError, DocumentError (several are meant).
    """
    found = _meant(listed, selector)
    count = len({listed[at].identity for at in found})
    if count == 1:
        return found[0]
    if selector and not found:
        raise MissingError(f"{name}: holds no image {selector[:128]!r}", hint=_known(listed))
    message = f"holds {count} images" if count else "holds no image"
    raise DocumentError(name, [Fault("", 0, message)], hint=_known(listed))


def _meant(listed: Sequence[Named], selector: str) -> list[int]:
    places = range(len(listed))
    if selector.startswith("@"):
        return [at for at in places if at == int(selector[1:])]
    if selector:
        return [at for at in places if _is_called(listed[at], selector)]
    return [at for at in places if listed[at].names] or list(places)


def _is_called(one: Named, selector: str) -> bool:
    """A digest is no name, whatever the archive says."""
    return selector == one.identity or (not is_digest(selector) and selector in one.names)


def _known(listed: Sequence[Named]) -> str:
    names = sorted({name for one in listed for name in one.names})
    return f"say which one, as :NAME: {', '.join(names[:_SHOWN])}" if names else "say which: :@0"


def names_of(entry: Descriptor) -> list[str]:
    """Return what the image of an entry is called; what refers to another one has no name here."""
    names = [entry.annotations.get(REF_NAME, ""), entry.annotations.get(_FULL_NAME, "")]
    return [name for name in names if name and not name.startswith(("sha256-", "sha512-"))]


def docker_name(text: str) -> str:
    """Return what Docker means by a name: its host, ``library/`` and tag written out.

    Raises: DocumentError.
    """
    named = Reference.parse(text)
    if named.digest is not None:
        raise DocumentError(repr(text[:200]), [Fault("", 0, "an archive knows no digests of it")])
    host = named.host or hub.NAMES[0]
    host = hub.NAMES[0] if host in hub.NAMES else host
    return f"{host}/{hub.repository(host, named.name)}:{named.tag or DEFAULT_TAG}"


def blob_digest(path: str) -> Digest | None:
    """Return the digest that a blob of a layout is named after, None for another file."""
    parts = path.split("/")
    if len(parts) != 3 or parts[0] != "blobs":
        return None
    try:
        return Digest(parts[1], parts[2])
    except MachineOSError:
        return None
