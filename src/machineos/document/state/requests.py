"""What the running system asks the next boot to do: ``/config/requests``.

Whoever writes requests may be root after an attack, so a request names a kind and a signed object,
by digest, and nothing else: a key that could hold a value is refused. What has to be known is
computed by the initrd from what it has verified. A request that is not good is told on the console
and changes nothing; a boot is never ended by one. Pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from machineos.core.digest import Digest
from machineos.core.jsondoc import decode_json
from machineos.document.rules.product import KNOWN_VERSION
from machineos.errors import DigestError, DocumentError, Fault

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FOLDER = "requests"
MAX_REQUESTS = 16
MAX_REQUEST = 4096
RAISE_FLOOR: Final = "raise-floor"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}\.json")
_SHOWN = 140  # characters of somebody else's text on the console


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    kind: str
    object: str


class Request(msgspec.Struct, frozen=True):
    """A well-formed request: what to do, and the verified object that it is about."""

    name: str
    kind: str
    object: Digest


class Named(msgspec.Struct, frozen=True):
    """What a boot has verified: for each generation that one may still go back to, the digest of
    its bootkit's image and the policy version of the kernel image in it."""

    bootkits: Mapping[Digest, str]


class Plan(msgspec.Struct, frozen=True):
    """What to do: the floor to raise to, empty for none; and one line for each request that is not
    carried out."""

    floor: str
    refused: tuple[str, ...]


def shown(text: str) -> str:
    """Return somebody else's text as it may stand on a console: one short line of plain ASCII."""
    return ascii(" ".join(text.split()))[1:-1][:_SHOWN]


def refusal(name: str, why: str) -> str:
    """Return the line about a request that is not carried out."""
    return f"request {shown(name)} is not carried out: {shown(why)}"


def chosen(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the requests that are read, and a line for each that is not.

    ``names`` may hold one more than ``MAX_REQUESTS``: then there are too many, and none is read,
    since which would be first is up to whoever wrote them.
    """
    if len(names) > MAX_REQUESTS:
        return (), (f"no request is carried out: there are more than {MAX_REQUESTS}",)
    ordered = sorted(names)
    bad = tuple(name for name in ordered if not _NAME.fullmatch(name))
    good = tuple(name for name in ordered if name not in bad)
    return good, tuple(refusal(name, "its name is not one of a request") for name in bad)


def parse_request(name: str, data: bytes) -> Request:
    """Return a request. Raises: DocumentError."""
    found = decode_json(data, _File, name=name, limit=MAX_REQUEST)
    faults = KNOWN_VERSION.faults(found.version)
    if found.kind != RAISE_FLOOR:
        faults.append(Fault("kind", 0, f"{found.kind[:40]!r} is not known to this version"))
    if faults:
        raise DocumentError(name, faults)
    try:
        return Request(name, found.kind, Digest.parse(found.object))
    except DigestError as error:
        raise DocumentError(name, [Fault("object", 0, error.message)]) from error


def plan(requests: Sequence[Request], named: Named, *, running: str, floor: str) -> Plan:
    """Return what is done about requests.

    ``running`` is the policy version of the running kernel image, ``floor`` the oldest that may
    boot. The floor rises to the lowest version among the named generations and never above the
    running one, whatever a request names.
    """
    wanted, refused = "", []
    for request in requests:
        if request.object not in named.bootkits:
            why = f"no verified generation has the bootkit {request.object}"
            refused.append(refusal(request.name, why))
            continue
        lowest = min(*named.bootkits.values(), running)
        wanted = lowest if lowest > floor else ""
    return Plan(wanted, tuple(refused))
