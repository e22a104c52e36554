"""Whether a value is data that nobody can change: what a plan may consist of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import PurePath
from uuid import UUID

import msgspec

from machineos.core.secret import Secret

_LEAVES = (
    str, bytes, int, float, bool, type(None), PurePath, UUID, datetime, Enum, Secret, range,
    IPv4Address, IPv4Interface, IPv6Address, IPv6Interface,
)  # fmt: skip


def faults(value: object, at: str = "") -> Iterator[str]:
    """Yield where ``value`` holds something that can be changed, or that is no data."""
    at = at or type(value).__name__
    if isinstance(value, _LEAVES):
        return
    if isinstance(value, (tuple, frozenset)):
        for number, item in enumerate(value):
            yield from faults(item, f"{at}[{number}]")
    elif isinstance(value, msgspec.Struct):
        if not type(value).__struct_config__.frozen:
            yield f"{at}: {type(value).__name__} is not frozen"
        for name in value.__struct_fields__:
            yield from faults(getattr(value, name), f"{at}.{name}")
    elif is_dataclass(value) and not isinstance(value, type):
        if not type(value).__dataclass_params__.frozen:  # type: ignore[attr-defined]
            yield f"{at}: {type(value).__name__} is not frozen"
        for field in fields(value):
            yield from faults(getattr(value, field.name), f"{at}.{field.name}")
    else:
        yield f"{at}: a {type(value).__name__}"
