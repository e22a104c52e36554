"""The walker over plans finds what it is for: else every test that uses it would prove nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_interface
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest

from frozen import faults
from machineos.core.digest import Digest
from machineos.core.secret import Secret
from machineos.core.steps import Step


@dataclass(frozen=True)
class Bad(Step[None]):
    point: ClassVar[str] = ""
    names: list[str] = field(default_factory=list)


@dataclass
class Loose:
    name: str = ""


class LooseStruct(msgspec.Struct):
    inner: object = None


class Struct(msgspec.Struct, frozen=True):
    inner: object = None


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ((1, "a", b"b", 1.5, frozenset({Path("/")}), None, True), []),
        ((Struct(Digest.of(b"")), Secret(b"x"), range(3), ip_interface("10.0.0.1/8")), []),
        (Bad(), ["Bad.names: a list"]),
        ((Loose(),), ["tuple[0]: Loose is not frozen"]),
        ((1, (2, {})), ["tuple[1][1]: a dict"]),
        ({}, ["dict: a dict"]),
        (set(), ["set: a set"]),
        (bytearray(), ["bytearray: a bytearray"]),
        (print, ["builtin_function_or_method: a builtin_function_or_method"]),
        (Loose, ["type: a type"]),
        (Struct(Struct([])), ["Struct.inner.inner: a list"]),
        (LooseStruct({}), ["LooseStruct: LooseStruct is not frozen", "LooseStruct.inner: a dict"]),
    ],
)
def test_what_can_be_changed_is_found(value: object, found: list[str]) -> None:
    assert list(faults(value)) == found
