"""A program byte by byte that writes code into its own memory and calls it.

It ends with 42 where that code ran, and by a signal where its memory is no code.
"""

from __future__ import annotations

import struct
from typing import Literal

LOAD, GNU_STACK = 1, 0x6474E551
R, RW, X = 4, 6, 1
AMD64, EXECUTABLE = 62, 2
ANSWER = 42
PAGE = 4096
_TEXT, _DATA = 0x400000, 0x600000
_HEADER, _SEGMENT = 64, 56
_CODE = bytes.fromhex("b82a000000c39090")  # mov eax, 42; ret; nop; nop


def program(place: Literal["stack", "data"], *, stack: int) -> bytes:
    """Return a program that writes to ``place``; ``stack`` are the flags that it asks for its
    stack."""
    code = b"\x48\x83\xec\x10\x48\xb8" + _CODE  # sub rsp, 16; mov rax, code
    if place == "stack":
        code += b"\x48\x89\x04\x24\xff\xd4"  # mov [rsp], rax; call rsp
    else:
        code += b"\x48\xbb" + struct.pack("<Q", _DATA)  # mov rbx, data
        code += b"\x48\x89\x03\xff\xd3"  # mov [rbx], rax; call rbx
    code += b"\x89\xc7\xb8\x3c\0\0\0\x0f\x05"  # mov edi, eax; exit(edi)
    begin = _HEADER + 3 * _SEGMENT
    size = begin + len(code)
    segments = (
        (LOAD, R | X, 0, _TEXT, _TEXT, size, size, PAGE),
        (LOAD, RW, 0, _DATA, _DATA, 0, PAGE, PAGE),
        (GNU_STACK, stack, 0, 0, 0, 0, 0, 16),
    )
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", EXECUTABLE, AMD64, 1, _TEXT + begin, _HEADER, 0, 0, _HEADER, _SEGMENT,
        len(segments), 0, 0, 0,
    )  # fmt: skip
    return head + b"".join(struct.pack("<IIQQQQQQ", *one) for one in segments) + code
