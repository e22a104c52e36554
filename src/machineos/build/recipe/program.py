"""What a program asks the kernel for its stack: read from the headers of an ELF file. Pure.

The file is somebody else's and may lie in every field, so it is read as the kernel reads it
(``fs/binfmt_elf.c``): by the number of the machine alone, whatever the bytes before it say of width
and order. What the kernel would not run, because a size is wrong or something is missing, is no
program; at most ``MAX_HEADERS`` bytes of headers are looked at, more the kernel does not take
either. Numbers and offsets: System V ABI, "Object Files".
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, Literal

from machineos.document.rules.programs import Program, Stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    # Gives ``size`` bytes from ``offset`` on, fewer where the file ends before.
    Read = Callable[[int, int], bytes]

MAGIC: Final = b"\x7fELF"
HEAD: Final = 64
MAX_HEADERS: Final = 65536
_EXEC, _DYN = 2, 3
# Intel 386 and 486, ARM; AMD64, AArch64. Others no machine of ours can run.
_BITS: Final[dict[int, Literal[32, 64]]] = {3: 32, 6: 32, 40: 32, 62: 64, 183: 64}
_TABLE: Final = {32: struct.Struct("<28xI10xHH"), 64: struct.Struct("<32xQ14xHH")}
_SEGMENT: Final = {32: struct.Struct("<I20xI4x"), 64: struct.Struct("<II48x")}
_GNU_STACK, _EXECUTABLE = 0x6474E551, 1


def read_program(path: str, read: Read) -> Program | None:
    """Return what the file ``path`` is as a program, None when no machine can run it."""
    head = read(0, HEAD)
    if len(head) < 20 or not head.startswith(MAGIC):
        return None
    kind, machine = struct.unpack_from("<HH", head, 16)
    bits = _BITS.get(machine)
    if bits is None or kind not in {_EXEC, _DYN} or len(head) < _TABLE[bits].size:
        return None
    start, each, count = _TABLE[bits].unpack_from(head)
    size = each * count
    if each != _SEGMENT[bits].size or not 0 < size <= MAX_HEADERS:
        return None
    headers = read(start, size)
    if len(headers) != size:
        return None
    return Program(path, bits, _stack(_SEGMENT[bits].iter_unpack(headers)))


def _stack(segments: Iterable[tuple[int, int]]) -> Stack:
    found = [flags for kind, flags in segments if kind == _GNU_STACK]
    if any(flags & _EXECUTABLE for flags in found):
        return "executable"
    return "plain" if found else "unsaid"
