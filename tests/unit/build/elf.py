"""Programs byte by byte, so that a test can lie in any field; each waits for a signal."""

from __future__ import annotations

import struct

LOAD, GNU_STACK = 1, 0x6474E551
AMD64, I386 = 62, 3
_BEGIN = 0x400000


def program(
    *stacks: int,
    machine: int = AMD64,
    kind: int = 2,
    ident: bytes = b"\x02\x01\x01",
    each: int | None = None,
    count: int | None = None,
    start: int | None = None,
) -> bytes:
    """Return a program with one such header for each of ``stacks``, their flags."""
    wide = machine != I386
    code = b"\xb8\x22\0\0\0\x0f\x05" if wide else b"\xb8\x1d\0\0\0\xcd\x80"  # pause()
    code += b"\xeb" + struct.pack("b", -len(code) - 2)
    width, head = (56, 64) if wide else (32, 52)
    length = head + width * (len(stacks) + 1)
    size = length + len(code)
    segments = [(LOAD, 5, 0, _BEGIN, _BEGIN, size, size, 4096)]
    segments += [(GNU_STACK, flags, 0, 0, 0, 0, 0, 16) for flags in stacks]
    if wide:
        headers = b"".join(struct.pack("<IIQQQQQQ", *each) for each in segments)
    else:
        headers = b"".join(
            struct.pack("<8I", kind, where, begin, begin, inside, most, flags, align)
            for kind, flags, where, begin, _, inside, most, align in segments
        )
    made = struct.pack(
        "<HHIQQQIHHHHHH" if wide else "<HHIIIIIHHHHHH",
        kind, machine, 1, _BEGIN + length, head if start is None else start, 0, 0, head,
        width if each is None else each, len(segments) if count is None else count, 0, 0, 0,
    )  # fmt: skip
    return (b"\x7fELF" + ident).ljust(16, b"\0") + made + headers + code
