"""shim, the first EFI program: puts the product's certificate into its ``.vendor_cert`` section.

The section is overwritten in place and everything else stays byte for byte, so the same input gives
the same bytes. (objcopy can do it too, but leaves the section's size in memory as it was, so that
a certificate that grew would be cut off unnoticed when the firmware loads it.)
"""

from __future__ import annotations

from dataclasses import dataclass

from machineos.errors import SpaceError, VerificationError

SECTION = ".vendor_cert"
MAX_SIZE = 16 << 20
_SYMBOL_SIZE = 18


@dataclass(frozen=True, slots=True)
class _Place:
    offset: int
    size: int  # bytes that are both in the file and in memory
    raw_size: int


def vendor_cert(binary: bytes) -> bytes:
    """Return the content of the section of a shim, padding included.

    Raises: VerificationError when it is no EFI binary or has no such section.
    """
    place = _find(binary)
    return binary[place.offset : place.offset + place.size]


def with_vendor_cert(binary: bytes, section: bytes) -> bytes:
    """Return a shim with ``section`` as its ``.vendor_cert``; any signature of it is void then.

    Raises: VerificationError (no shim), SpaceError (the section is larger than the shim's).
    """
    place = _find(binary)
    if len(section) > place.size:
        raise SpaceError(
            f"shim has room for {place.size} bytes of certificates, not {len(section)}"
        )
    end = place.offset + place.raw_size
    return binary[: place.offset] + section.ljust(place.raw_size, b"\0") + binary[end:]


def _find(binary: bytes) -> _Place:
    import pefile

    try:
        image = pefile.PE(data=binary, fast_load=True)
    except pefile.PEFormatError as error:
        raise VerificationError(f"shim is not an EFI binary: {error}") from error
    header = image.FILE_HEADER
    strings = header.PointerToSymbolTable + _SYMBOL_SIZE * header.NumberOfSymbols
    for section in image.sections:
        if _section_name(binary, section.Name, strings) != SECTION:
            continue
        offset, raw_size = section.PointerToRawData, section.SizeOfRawData
        if offset + raw_size <= len(binary):
            return _Place(offset, min(section.Misc_VirtualSize, raw_size), raw_size)
    raise VerificationError(
        f"shim has no {SECTION} section", hint="use the shim of Debian's package shim-unsigned"
    )


def _section_name(binary: bytes, raw: bytes, strings: int) -> str:
    name = raw.rstrip(b"\0")
    if name.startswith(b"/") and name[1:].isdigit():
        # a name over 8 bytes stands in the string table, the header holds its offset there
        start = strings + int(name[1:])
        name = binary[start : start + len(SECTION) + 1].split(b"\0")[0]
    return name.decode("ascii", "replace")
