"""Strict JSON for documents from outside: bounded in size and depth, no duplicate keys.

Both json and msgspec take the last of two equal keys in silence; two readers that disagree about
which one counts is how signed documents get two meanings (CVE-2021-41190 and its kin), so equal
keys are a fault here.
"""

from __future__ import annotations

import json
import math
import re
from itertools import accumulate
from typing import Any, TypeVar

import msgspec

from machineos.errors import DocumentError, Fault

T = TypeVar("T")
MAX_DEPTH = 32
# A string that never ends matches to the end of the document, or each quote in it would look again.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_LEVELS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_OTHERS = bytes(set(range(256)) - set(_LEVELS))
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse_json(data: bytes, *, name: str, limit: int = 4 << 20) -> Any:  # noqa: ANN401
    """Return the value of a JSON document.

    Raises: DocumentError for anything but one well-formed UTF-8 document of at most ``limit`` bytes
    without duplicate keys, NaN, infinities, integers over 64 bits, halves of surrogate pairs, or
    more than ``MAX_DEPTH`` levels.
    """
    if len(data) > limit:
        raise _fault(name, f"is larger than {limit} bytes")
    _check_depth(data, name)
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=lambda pairs: _no_duplicates(pairs, name),
            parse_constant=lambda text: _refuse_constant(text, name),
            parse_float=lambda text: _finite(text, name),
            parse_int=lambda text: _whole(text, name),
        )
        if _SURROGATE.search(data):  # half of a pair is no character: it could never be written
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise _fault(name, "holds half of a surrogate pair") from error
    except UnicodeDecodeError as error:
        raise _fault(name, "is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise DocumentError(name, [Fault("", error.lineno, f"is not JSON: {error.msg}")]) from error
    return value


def decode_json(data: bytes, model: type[T], *, name: str, limit: int = 4 << 20) -> T:
    """Return the document as ``model`` (a msgspec Struct; unknown keys as the model says).

    Raises: DocumentError.
    """
    value = parse_json(data, name=name, limit=limit)
    try:
        return msgspec.convert(value, model)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `")
        raise DocumentError(name, [Fault(path.rstrip("`").lstrip("$."), 0, message)]) from error


def _no_duplicates(pairs: list[tuple[str, Any]], name: str) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise _fault(name, f"has the key {key[:80]!r} twice")
        result[key] = value
    return result


def _refuse_constant(text: str, name: str) -> None:
    raise _fault(name, f"holds {text}")


def _finite(text: str, name: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _fault(name, f"holds {text[:80]}, which is out of range")
    return value


def _whole(text: str, name: str) -> int:
    # What does not fit into 64 bits cannot be encoded again, and other readers round it.
    value = int(text) if len(text) <= 20 else 1 << 64
    if not -(1 << 63) <= value < 1 << 64:
        raise _fault(name, f"holds {text[:80]}, which is out of range")
    return value


def _check_depth(data: bytes, name: str) -> None:
    brackets = _STRING.sub(b"", data).translate(None, _OTHERS)
    if max(accumulate(map(_LEVELS.__getitem__, brackets)), default=0) > MAX_DEPTH:
        raise _fault(name, f"is nested deeper than {MAX_DEPTH} levels")


def _fault(name: str, message: str) -> DocumentError:
    return DocumentError(name, [Fault("", 0, message)])
