"""The header of a LUKS2 device, read without any tool (LUKS2 On-Disk Format Specification 1.1).

Its bytes may be anybody's: everything has a bound, and a header that is not of the one shape which
this system makes is refused, whatever else LUKS2 allows (a null cipher, a re-encryption that claims
to be half done, a requirement). Touches nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from machineos.core.jsondoc import parse_json
from machineos.errors import DocumentError, VerificationError
from machineos.host.disk.luks import HEADER_SIZE

_MAGIC = b"LUKS\xba\xbe\x00\x02"
_BINARY_SIZE, _AREA_SIZE = 4096, 16384
_SIZE_AT, _UUID_AT, _UUID_SIZE = 8, 0xA8, 40
_SEGMENTS = {
    "0": {
        "type": "crypt", "offset": str(HEADER_SIZE), "size": "dynamic", "iv_tweak": "0",
        "encryption": "aes-xts-plain64", "sector_size": 4096,
    }
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Header:
    """What a header says: the uuid of the device, and its tokens as they stand there."""

    uuid: str
    tokens: tuple[dict[str, Any], ...]

    def token(self, kind: str) -> dict[str, Any]:
        """Return the only token of a type. Raises: VerificationError."""
        found = [token for token in self.tokens if token.get("type") == kind]
        if len(found) != 1:
            raise VerificationError(f"a LUKS header has {len(found)} tokens {kind}, not one")
        return found[0]


def parse_header(data: bytes) -> Header:
    """Read the first of the two headers; ``data`` begins with it. Raises: VerificationError."""
    size = int.from_bytes(data[_SIZE_AT : _SIZE_AT + 8], "big")
    if not data.startswith(_MAGIC) or size != _AREA_SIZE or len(data) < _AREA_SIZE:
        raise VerificationError("there is no LUKS header of this system")
    text, _, _ = data[_BINARY_SIZE:_AREA_SIZE].partition(b"\0")
    try:
        body: Any = parse_json(text, name="LUKS header")
    except DocumentError as error:
        raise VerificationError("a LUKS header holds no JSON") from error
    found = body if isinstance(body, dict) else {}
    config, tokens = found.get("config"), found.get("tokens")
    if found.get("segments") != _SEGMENTS or not isinstance(config, dict):
        raise VerificationError("a LUKS header is for other data than this system writes")
    if "requirements" in config:
        raise VerificationError("a LUKS header has requirements")
    listed = tuple(tokens.values()) if isinstance(tokens, dict) else ()
    if not all(isinstance(token, dict) for token in listed):
        raise VerificationError("a LUKS header has a token that is none")
    uuid = data[_UUID_AT : _UUID_AT + _UUID_SIZE].partition(b"\0")[0]
    return Header(uuid.decode("ascii", "replace"), listed)
