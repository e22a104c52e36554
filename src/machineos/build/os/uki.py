"""Unified kernel images: systemd's stub with the sections of UAPI.5, and what they measure.

Invariant: the same sections give the same bytes, and ``measure`` returns the value that PCR 11 has
when the stub of systemd 257 hands over, so a policy for it can be signed before it ever boots.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from machineos.errors import ToolError

if TYPE_CHECKING:
    from collections.abc import Mapping

# The order in which systemd-stub 257 measures; .pcrsig is left out because it holds the result.
MEASURED = (
    ".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".uname", ".sbat",
    ".pcrpkey", ".profile", ".dtbauto", ".hwids",
)  # fmt: skip
_HEADER = struct.Struct("<8sIIIIIIHHI")
_READ_ONLY_DATA = 0x40000040  # IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ
_MAX_SECTIONS = 96


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the numbers that we change are in a PE file."""

    count: int
    optional: int
    table: int
    sections: int
    section_align: int
    file_align: int
    header_size: int


def assemble(stub: bytes, sections: Mapping[str, bytes], *, sbat: bytes) -> bytes:
    """Return the stub with ``sections`` appended in their order and its ``.sbat`` replaced.

    Trailing data of the stub (a symbol table) is cut off: signing tools disagree about the hash of
    a file that has some. Raises: ToolError.
    """
    import pefile

    try:
        image = pefile.PE(data=stub, fast_load=True)
    except pefile.PEFormatError as error:
        raise ToolError(f"the boot stub is not a PE file: {error}") from error
    end = max(s.PointerToRawData + s.SizeOfRawData for s in image.sections)
    data = bytearray(stub[:end])
    layout = _layout(image)
    if layout.sections + len(sections) > _MAX_SECTIONS:
        raise ToolError("too many sections for one image")
    if long := [name for name in sections if len(name.encode()) > 8]:
        raise ToolError(f"the section name {long[0]!r} is longer than 8 bytes")
    room = layout.table + _HEADER.size * (layout.sections + len(sections))
    if room > layout.header_size:
        raise ToolError("the boot stub has no room for more section headers")
    _replace_sbat(data, image, sbat)
    last = image.sections[-1]
    address = _round(last.VirtualAddress + last.Misc_VirtualSize, layout.section_align)
    for number, (name, content) in enumerate(sections.items()):
        offset = _round(len(data), layout.file_align)
        data.extend(bytes(offset - len(data)))
        raw = _round(len(content), layout.file_align)
        header = _HEADER.pack(
            name.encode(), len(content), address, raw, offset, 0, 0, 0, 0, _READ_ONLY_DATA
        )
        place = layout.table + _HEADER.size * (layout.sections + number)
        data[place : place + _HEADER.size] = header
        data.extend(content)
        data.extend(bytes(raw - len(content)))
        address = _round(address + len(content), layout.section_align)
    struct.pack_into("<H", data, layout.count, layout.sections + len(sections))
    struct.pack_into("<I", data, layout.optional + 56, address)  # SizeOfImage
    struct.pack_into("<I", data, layout.optional + 64, 0)  # CheckSum: unused by UEFI
    coff = layout.optional - 20
    struct.pack_into("<II", data, coff + 8, 0, 0)  # symbol table and count: cut off
    return bytes(data)


def read_sections(image: bytes) -> dict[str, bytes]:
    """Return the content of each section as it is in memory. Raises: ToolError."""
    import pefile

    try:
        parsed = pefile.PE(data=image, fast_load=True)
    except pefile.PEFormatError as error:
        raise ToolError(f"not a PE file: {error}") from error
    return {
        section.Name.rstrip(b"\0").decode("ascii", "replace"): bytes(
            section.get_data()[: section.Misc_VirtualSize]
        )
        for section in parsed.sections
    }


def measure(sections: Mapping[str, bytes]) -> bytes:
    """Return the SHA-256 value of PCR 11 after the stub measured ``sections`` (32 bytes)."""
    value = bytes(32)
    for name in MEASURED:
        if name in sections:
            for data in (name.encode() + b"\0", sections[name]):
                value = hashlib.sha256(value + hashlib.sha256(data).digest()).digest()
    return value


def _layout(image: object) -> _Layout:
    optional = image.OPTIONAL_HEADER  # type: ignore[attr-defined]
    header = image.FILE_HEADER  # type: ignore[attr-defined]
    start = optional.get_file_offset()
    return _Layout(
        count=header.get_file_offset() + 2,
        optional=start,
        table=start + header.SizeOfOptionalHeader,
        sections=header.NumberOfSections,
        section_align=optional.SectionAlignment,
        file_align=optional.FileAlignment,
        header_size=optional.SizeOfHeaders,
    )


def _replace_sbat(data: bytearray, image: object, sbat: bytes) -> None:
    for section in image.sections:  # type: ignore[attr-defined]
        if section.Name.rstrip(b"\0") == b".sbat":
            if len(sbat) > section.SizeOfRawData:
                raise ToolError(f"the SBAT text is longer than {section.SizeOfRawData} bytes")
            start = section.PointerToRawData
            data[start : start + section.SizeOfRawData] = sbat.ljust(section.SizeOfRawData, b"\0")
            struct.pack_into("<I", data, section.get_file_offset() + 8, len(sbat))
            return
    raise ToolError("the boot stub has no .sbat section")


def _round(value: int, unit: int) -> int:
    return -(-value // unit) * unit
