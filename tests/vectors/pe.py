"""A generator of the smallest EFI binary that the signing tools take."""

from __future__ import annotations

import struct


def efi_binary(text: bytes = b"\xc3", extra: tuple[tuple[bytes, bytes], ...] = ()) -> bytes:
    """A PE32+ EFI application with a ``.text`` section and any further sections (name, content)."""
    sections = ((b".text", text), *extra)
    headers = 0x400
    table, body, at, address = b"", b"", headers, 0x1000
    for name, content in sections:
        padded = content.ljust(-(-len(content) // 0x200) * 0x200, b"\0")
        flags = 0x60000020 if name == b".text" else 0x40000040
        table += struct.pack(
            "<8sIIIIIIHHI", name, len(content), address, len(padded), at, 0, 0, 0, 0, flags
        )
        body += padded
        at += len(padded)
        address += -(-len(content) // 0x1000) * 0x1000
    dos = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    coff = b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, len(sections), 0, 0, 0, 240, 0x22E)
    optional = struct.pack(
        "<HBBIIIII", 0x20B, 2, 0, 0x200, len(body) - 0x200, 0, 0x1000, 0x1000
    ) + struct.pack(
        "<QIIHHHHHHIIIIHHQQQQII", 0x400000, 0x1000, 0x200, 0, 0, 0, 0, 0, 0, 0, address, headers,
        0, 10, 0, 0, 0, 0, 0, 0, 16,
    )  # fmt: skip
    return (dos + coff + optional.ljust(240, b"\0") + table).ljust(headers, b"\0") + body
