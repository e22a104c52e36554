"""machine.yaml as text: decoding with every fault at once, and its inverse.

Unknown keys, unknown values, duplicate names and duplicate host ports are faults with path and
line. Encoding gives the keys in the order of seed 002; what has its default value is left out,
except the keys that a person is likely to change. Invariant: decoding what was encoded gives the
same machine.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec
import yaml

from machineos.core.yamldoc import Mapping, Scalar, Sequence, decode, line_of, parse_yaml
from machineos.errors import DocumentError, Fault
from machineos.vm.model import BootIndex, Machine, Size, check

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from machineos.core.yamldoc import Node

# Paths that may be written relative to a folder, and whether a plain name has a meaning of its own.
_PATHS = {
    ("config", "cdrom"): False,
    ("config", "uefi-code"): False,
    ("config", "uefi-vars"): False,
    ("config", "disks", "file"): True,
    ("config", "fw-cfg", "file"): False,
    ("config", "nics", "romfile"): False,
}
_ALWAYS = {
    "type", "config", "name", "cpus", "memory", "serial", "nics", "disks", "boot", "cdrom",
    "uefi-code", "uefi-vars", "tpm", "tpm-version", "secure-boot", "gui", "description",
    "ephemeral", "file", "size", "id", "device", "network", "ports", "host", "guest", "port",
    "address", "protocol",
}  # fmt: skip
_TOP = ("type", "config", "description", "ephemeral", "name")


@dataclass(frozen=True, slots=True)
class Base:
    """What relative paths (``folder``) and ``~/`` (``home``) stand for."""

    folder: Path
    home: Path


def decode_machine(
    data: bytes, *, name: str, machine: str = "", base: Base | None = None
) -> Machine:
    """Return the machine in ``data``; ``name`` is the document's name for messages, ``machine``
    the machine's name when the document has none. Relative paths are a fault without a ``base``.

    Raises: DocumentError with every fault.
    """
    node = parse_yaml(data, name=name)
    if base is not None:
        node = _absolute(node, base, ())
    faults: list[Fault] = []
    value: Machine | None = decode(node, Machine, faults)
    if value is None or faults:
        raise DocumentError(name, faults)
    value = _named(value, machine)
    faults = [Fault(path, line_of(node, path), text) for path, text in check(value)]
    if faults:
        raise DocumentError(name, sorted(faults, key=lambda fault: fault.line))
    return msgspec.structs.replace(value, status="")


def machine_dict(machine: Machine) -> dict[str, object]:
    """Return the machine as plain values, for YAML and JSON."""
    value = dict(_fields(machine))
    return {key: value[key] for key in _TOP}


def encode_machine(machine: Machine) -> bytes:
    """Return machine.yaml."""
    text = yaml.safe_dump(machine_dict(machine), sort_keys=False, allow_unicode=True, width=100)
    return text.encode()


def _named(machine: Machine, name: str) -> Machine:
    chosen = machine.name or machine.config.name or name
    config = msgspec.structs.replace(machine.config, name=machine.config.name or chosen)
    return msgspec.structs.replace(machine, name=chosen, config=config)


def _absolute(node: Node, base: Base, where: tuple[str, ...]) -> Node:
    if isinstance(node, Mapping):
        items = {key: _absolute(value, base, (*where, key)) for key, value in node.items.items()}
        return replace(node, items=items)
    if isinstance(node, Sequence):
        return replace(node, items=tuple(_absolute(item, base, where) for item in node.items))
    if where not in _PATHS or node.is_null:
        return node
    return _absolute_path(node, base, plain=_PATHS[where])


def _absolute_path(node: Scalar, base: Base, *, plain: bool) -> Scalar:
    text = node.text
    if text.startswith("~/"):
        return replace(node, text=str(base.home / text[2:]))
    if not text or text.startswith("/") or (plain and "/" not in text):
        return node
    return replace(node, text=posixpath.normpath(str(base.folder / text)))


def _fields(model: msgspec.Struct) -> Iterator[tuple[str, object]]:
    for field in msgspec.structs.fields(type(model)):
        value = getattr(model, field.name)
        if value != field.default or field.encode_name in _ALWAYS:
            yield field.encode_name, _plain(value)


def _plain(value: object) -> object:
    if isinstance(value, msgspec.Struct):
        return dict(_fields(value))
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Size):
        return value.bytes
    if isinstance(value, BootIndex):
        return "off" if value.value is None else str(value.value)
    return value
