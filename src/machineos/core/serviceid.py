"""Who a service is, and every name under which it appears on the machine.

The one place that derives the name of a unit, a folder, a container, a host, a link or a log line
from the identity of a service. Invariant: a ``ServiceId`` that exists is a plain file name in lower
case, so nothing that is derived from it needs a check of its own.

Today the text is the service's name in the manifest. It will be that of ``docs/design.md`` once
several versions and instances of a service run at a time; nobody but this module will notice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from machineos.core.word import Word
from machineos.errors import DocumentError, Fault

if TYPE_CHECKING:
    from ipaddress import IPv4Address

UNIT_PREFIX = "machineos-"
LINK_PREFIX = "mv"  # no other link of the machine is called so
_UNIT_SUFFIX = ".service"


class ServiceName(Word):
    """The name of a target within a manifest; at most 63 characters, as a host name has."""

    __slots__ = ()
    PATTERN = r"[a-z0-9][a-z0-9._-]{0,62}"
    WHAT = f"a service name ({PATTERN})"


@dataclass(frozen=True, slots=True, order=True)
class ServiceId:
    """The identity of a service; ``text`` is unique on the machine."""

    text: str

    def __post_init__(self) -> None:
        problem = ServiceName.problem(self.text)
        if problem:
            raise DocumentError("service", [Fault("", 0, problem)])

    def __str__(self) -> str:
        return self.text

    @property
    def unit(self) -> str:
        """The name of its systemd unit."""
        return f"{UNIT_PREFIX}{self.text}{_UNIT_SUFFIX}"

    @property
    def folder(self) -> str:
        """The name of each folder that belongs to it."""
        return self.text

    @property
    def container(self) -> str:
        """What LXC calls its container."""
        return self.text

    @property
    def host_name(self) -> str:
        """A host name that DNS would take (RFC 1035: one label)."""
        return re.sub(r"[^a-z0-9-]", "-", self.text).rstrip("-")

    @property
    def log(self) -> str:
        """The identifier of its lines in the journal."""
        return self.text

    def link(self, address: IPv4Address) -> str:
        """Return the name of the host's end of its link: at most 15 characters, unique as the
        address is."""
        return f"{LINK_PREFIX}{address.packed.hex()}"

    @classmethod
    def of_unit(cls, name: str) -> ServiceId | None:
        """Return whose unit ``name`` is, None when it is the unit of no service."""
        if not (name.startswith(UNIT_PREFIX) and name.endswith(_UNIT_SUFFIX)):
            return None
        return cls.of_folder(name[len(UNIT_PREFIX) : -len(_UNIT_SUFFIX)])

    @classmethod
    def of_folder(cls, name: str) -> ServiceId | None:
        """Return whose folder ``name`` is, None when it is the folder of no service."""
        return None if ServiceName.problem(name) else cls(name)
