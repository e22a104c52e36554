"""A manifest that breaks no rule, to be changed in one place."""

from __future__ import annotations

from typing import Any

from machineos.document.model.install import Mount, Network, Port, Storage
from machineos.document.rules.registry import RULES
from machineos.document.rules.subject import Declaration, DeclaredTarget

DIGEST = "sha256:" + "a" * 64


def rule(name: str) -> Any:
    """Return the rule of that name."""
    (found,) = [one for one in RULES if one.name == name]
    return found


def target(name: str = "a", **changes: Any) -> DeclaredTarget:
    """Return a good target."""
    values: dict[str, Any] = {
        "service_name": name,
        "version": "1",
        "service_type": "container",
        "network": Network(type="none"),
        "digest": DIGEST,
        "size": 1000,
    }
    return DeclaredTarget(**{**values, **changes})


def simple(name: str = "a", **changes: Any) -> DeclaredTarget:
    """Return a target with a network of its own."""
    return target(name, network=Network(type="simple", **changes))


def port(host: int, container: int = 1, **changes: Any) -> Port:
    """Return a port."""
    return Port(host=host, container=container, **changes)


def mount(dest: str = "/data", label: str = "data") -> Mount:
    """Return a mount."""
    return Mount(dest=dest, label=label)


def volume(label: str = "data", **changes: Any) -> Storage:
    """Return a volume."""
    values: dict[str, Any] = {"label": label, "persistent": True, "nsgroup": "", "size": 1}
    return Storage(**{**values, **changes})


def declaration(
    *targets: DeclaredTarget, storage: tuple[Storage, ...] = (), **changes: Any
) -> Declaration:
    """Return a complete manifest."""
    values: dict[str, Any] = {"version": 1, "product": "p", "complete": True}
    return Declaration(targets=targets, storage=storage, **{**values, **changes})


def breaches(name: str, *targets: DeclaredTarget, **changes: Any) -> list[tuple[str, str]]:
    """Return what one rule says of a manifest with these targets."""
    return list(rule(name).breaches(declaration(*targets, **changes)))
