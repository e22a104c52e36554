"""A manifest that breaks no rule, to be changed in one place."""

from __future__ import annotations

from typing import Any

from machineos.document.model.install import Mount, Network, Port, Protocol, Storage
from machineos.document.rules.registry import RULES
from machineos.document.rules.rule import Rule
from machineos.document.rules.subject import Declaration, DeclaredTarget

DIGEST = "sha256:" + "a" * 64


def rule(name: str) -> Rule[Any]:
    """Return the rule of that name."""
    (found,) = [one for one in RULES if one.name == name]
    return found


def target(name: str = "a", **changes: object) -> DeclaredTarget:
    """Return a good target."""
    values: dict[str, Any] = {
        "service_name": name,
        "version": "1",
        "service_type": "container",
        "network": Network(type="none"),
        "digest": DIGEST,
        "size": 1000,
    }
    values |= changes
    return DeclaredTarget(**values)


def simple(
    name: str = "a", *, ipv4: str = "", ipv6: str = "", ports: tuple[Port, ...] = ()
) -> DeclaredTarget:
    """Return a target with a network of its own."""
    return target(name, network=Network(type="simple", ipv4=ipv4, ipv6=ipv6, ports=ports))


def port(host: int, container: int = 1, *, protocol: Protocol = "tcp") -> Port:
    """Return a port."""
    return Port(host=host, container=container, protocol=protocol)


def mount(dest: str = "/data", label: str = "data") -> Mount:
    """Return a mount."""
    return Mount(dest=dest, label=label)


def volume(label: str = "data", **changes: object) -> Storage:
    """Return a volume."""
    values: dict[str, Any] = {"label": label, "persistent": True, "nsgroup": "", "size": 1}
    return Storage(**{**values, **changes})


def declaration(
    *targets: DeclaredTarget, storage: tuple[Storage, ...] = (), **changes: object
) -> Declaration:
    """Return a complete manifest."""
    values: dict[str, Any] = {"version": 1, "product": "p", "complete": True}
    return Declaration(targets=targets, storage=storage, **{**values, **changes})


def breaches(
    name: str, *targets: DeclaredTarget, storage: tuple[Storage, ...] = (), **changes: object
) -> list[tuple[str, str]]:
    """Return what one rule says of a manifest with these targets."""
    return list(rule(name).breaches(declaration(*targets, storage=storage, **changes)))
