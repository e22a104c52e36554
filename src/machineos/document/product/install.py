"""``install.json``: the strict reader of the signed document that names what a machine runs.

Invariant: an ``Install`` from ``parse_install`` has passed every rule of ``document.rules``.

Read form: keys in any order; a missing or null list is an empty one, and the parts of a network
other than its type may be missing, as in the predecessor's hand-made documents. Everything else is
refused: unknown keys, duplicate keys, other versions.
"""

from __future__ import annotations

import msgspec

from machineos.core.jsondoc import parse_json
from machineos.document.model.install import (
    VERSION,
    Install,
    Mount,
    Network,
    NetworkType,
    Port,
    Protocol,
    ServiceType,
    Storage,
    Target,
    UpdateType,
)
from machineos.document.model.limits import MAX_INSTALL
from machineos.document.rules.product import KNOWN_VERSION
from machineos.document.rules.registry import judge
from machineos.document.rules.subject import declared
from machineos.errors import DocumentError, Fault


def parse_install(data: bytes, *, name: str = "install.json") -> Install:
    """Return the document. Raises: DocumentError with every broken rule."""
    value = parse_json(data, name=name, limit=MAX_INSTALL)
    if isinstance(value, dict) and value.get("version") != VERSION:
        # Before the shape: a later version may well have another one.
        found = value.get("version", "missing")
        raise DocumentError(name, KNOWN_VERSION.faults(found))
    try:
        install: Install = _without_nulls(msgspec.convert(value, Install))
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `")
        raise DocumentError(name, [Fault(path.rstrip("`").lstrip("$."), 0, message)]) from error
    faults = judge(declared(install))
    if faults:
        raise DocumentError(name, faults)
    return install


def _without_nulls(install: Install) -> Install:
    """Return ``install`` with empty tuples for nulls, so that equal meaning is an equal value."""
    targets = tuple(
        msgspec.structs.replace(
            target,
            storage=target.storage or (),
            network=msgspec.structs.replace(target.network, ports=target.network.ports or ()),
        )
        for target in install.targets
    )
    return msgspec.structs.replace(install, targets=targets, storage=install.storage or ())


__all__ = [
    "MAX_INSTALL",
    "VERSION",
    "Install",
    "Mount",
    "Network",
    "NetworkType",
    "Port",
    "Protocol",
    "ServiceType",
    "Storage",
    "Target",
    "UpdateType",
    "parse_install",
]
