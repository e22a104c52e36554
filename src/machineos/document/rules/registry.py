"""All rules, and the judgement of a whole manifest by those that speak of one.

Who adds a rule adds it to the table of its subject; a test asks for a bad input then, and pushes it
through every gate that the rule names.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from machineos.document.rules import (
    bootable,
    configs,
    handover,
    images,
    layer,
    network,
    product,
    programs,
    publisher,
    roothash,
    storage,
    system,
    targets,
)

if TYPE_CHECKING:
    from machineos.document.rules.rule import Rule
    from machineos.document.rules.subject import Declaration
    from machineos.errors import Fault

_BOUNDS = (*targets.BOUNDS, *storage.BOUNDS, *network.BOUNDS)
_DECLARATION = (product.PRODUCT, *storage.RULES, *targets.RULES, *network.RULES)
RULES: tuple[Rule[Any], ...] = (
    product.KNOWN_VERSION,
    *_BOUNDS,
    *_DECLARATION,
    product.COMPLETE,
    product.BOOTS,
    product.SAME_PUBLISHER,
    product.SAME_NAME,
    *publisher.CLAIMS,
    *publisher.SOURCES,
    *images.NAMED,
    *images.RULES,
    images.LAYERS,
    images.CONFIG_SIZE,
    layer.MOUNTABLE,
    *configs.RULES,
    configs.PLATFORM,
    configs.USER_FILES,
    configs.USER_KNOWN,
    roothash.SIGNED,
    storage.FOLDERS,
    programs.STACK,
    bootable.BOOTABLE,
    *system.RULES,
    system.FREE,
    system.GIVEN,
    *handover.RULES,
    handover.KEY,
    handover.LABELS,
    handover.GROUPS,
    *handover.IMAGE,
)
# The keys of a manifest in the order in which they are written, whatever they are in.
_KEYS = (
    "service_name", "source", "version", "service_type", "product", "update_type", "network",
    "type", "ipv4", "ipv6", "ports", "host", "container", "protocol", "dest", "label",
    "persistent", "nsgroup", "digest", "storage", "size", "targets",
)  # fmt: skip
_STEP = re.compile(r"(\w+)|\[(\d+)\]")


def judge(declaration: Declaration) -> list[Fault]:
    """Return every breach of a rule by a manifest, in document order.

    Of a manifest that has too much of something only that is said.
    """
    found = product.KNOWN_VERSION.faults(declaration.version)
    bounds = [fault for rule in _BOUNDS for fault in rule.faults(declaration)]
    found += bounds or [fault for rule in _DECLARATION for fault in rule.faults(declaration)]
    return sorted(found, key=lambda fault: document_order(fault.path))


def document_order(path: str) -> tuple[int, ...]:
    """Return a key that sorts paths of a manifest's keys the way it is written."""
    return tuple(int(index) if index else _KEYS.index(name) for name, index in _STEP.findall(path))
