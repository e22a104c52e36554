"""What programs ask for: read as the kernel reads it, whatever the file says of itself."""

from __future__ import annotations

import signal
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.build.recipe.program import HEAD, MAGIC, MAX_HEADERS, read_program
from machineos.document.rules.programs import STACK, Program
from unit.build.elf import AMD64, I386, program
from waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

RW, RWX = 6, 7


def reading(data: bytes) -> Callable[[int, int], bytes]:
    def read(offset: int, size: int) -> bytes:
        assert offset >= 0
        assert 0 < size <= MAX_HEADERS
        return data[offset : offset + size]

    return read


def seen(data: bytes) -> Program | None:
    return read_program("/bin/x", reading(data))


def refused(data: bytes) -> bool:
    found = seen(data)
    return found is not None and bool(list(STACK.breaches([found])))


# Name, file, whether its stack can be executed.
PROGRAMS = {
    "plain": (program(RW), False),
    "executable": (program(RWX), True),
    "unsaid": (program(), False),
    "only executable": (program(1), True),
    "library": (program(RWX, kind=3), True),
    "the last one counts": (program(RW, RWX), True),
    "says that it is of 32 bits": (program(RWX, ident=b"\x01\x01\x01"), True),
    "says that it is of another order": (program(RWX, ident=b"\x02\x02\x01"), True),
    "says nothing": (program(RWX, ident=b""), True),
    "32 plain": (program(RW, machine=I386, ident=b"\x01\x01\x01"), False),
    "32 executable": (program(RWX, machine=I386, ident=b"\x01\x01\x01"), True),
    "32 unsaid": (program(machine=I386, ident=b"\x01\x01\x01"), True),
    "32 says that it is of 64 bits": (program(machine=I386), True),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_is_refused(name: str) -> None:
    data, wanted = PROGRAMS[name]
    assert refused(data) is wanted


@pytest.mark.attack(
    "image",
    "a program with an executable stack",
    "refused when the image is built, converted or published",
)
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_kernel_sees_the_same(name: str, tmp_path: Path) -> None:
    """Each is run; then its stack is looked at."""
    data, wanted = PROGRAMS[name]
    path = tmp_path / "program"
    path.write_bytes(data)
    path.chmod(0o755)
    try:
        process = subprocess.Popen([path])
    except OSError:
        # The machine of the test need not have 32 bits.
        assert seen(data) is not None
        assert "32" in name or "library" in name
        return
    try:
        maps = Path(f"/proc/{process.pid}/maps")
        wait_for(lambda: str(path) in maps.read_text(), during=process, what=name)
        (stack,) = [line for line in maps.read_text().splitlines() if line.endswith("[stack]")]
        assert ("x" in stack.split()[1]) is wanted, stack
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_of_two_that_differ_one_is_enough() -> None:
    assert refused(program(RWX, RW))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x7fEL",
        MAGIC,
        MAGIC + bytes(12) + b"\x02\0\x3e",
        b"#!/bin/sh\n" + program(RWX),
        program(RWX)[:HEAD],
        program(RWX)[: HEAD + 2 * 56 - 1],  # cut off within its headers
        program(RWX, kind=1),  # an object file, a kernel module
        program(RWX, kind=4),  # a core dump
        program(RWX, machine=243),  # of a machine that is none of ours
        program(RWX, each=55),
        program(RWX, each=32),
        program(RWX, count=0),
        program(RWX, count=0xFFFF),
        program(RWX, count=MAX_HEADERS // 56 + 1) + bytes(MAX_HEADERS),
        program(RWX, start=(1 << 64) - 1),
        program(RWX, start=1 << 63),
    ],
)
def test_what_no_kernel_runs(data: bytes) -> None:
    assert seen(data) is None


def test_the_most_headers_that_a_kernel_takes() -> None:
    most = MAX_HEADERS // 56
    data = program(*[RW] * (most - 2), RWX)
    assert refused(data)
    assert seen(program(*[RW] * (most - 1), RWX)) is None


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    seen(data)
    seen(MAGIC + data)


@given(st.integers(0, HEAD + 3 * 56), st.binary(min_size=1, max_size=8))
def test_a_program_with_any_change(where: int, change: bytes) -> None:
    data = program(RW, RWX)
    changed = data[:where] + change + data[where + len(change) :]
    found = seen(changed)
    if found is not None:
        assert found.bits in {32, 64}
    if where >= HEAD + 3 * 56 or where + len(change) <= 4:
        assert refused(changed) is changed.startswith(MAGIC)


def test_where_a_program_has_its_headers_is_its_own_choice() -> None:
    data = program(RWX)
    headers = data[HEAD : HEAD + 2 * 56]
    far = bytearray(data[:HEAD] + bytes(100_000) + headers)
    struct.pack_into("<Q", far, 32, HEAD + 100_000)
    assert refused(bytes(far))


def test_machines_of_64_bits_read_the_wide_header() -> None:
    for machine in (AMD64, 183):
        assert seen(program(RWX, machine=machine)) == Program("/bin/x", 64, "executable")
    assert seen(program(machine=I386)) == Program("/bin/x", 32, "unsaid")


def test_what_is_said_of_it() -> None:
    found = [
        Program("/a", 64, "plain"), Program("/b", 64, "executable"), Program("/c", 32, "unsaid"),
        Program("/d", 64, "unsaid"), Program("/e\n\x1b[2J", 32, "executable"),
    ]  # fmt: skip
    assert [message for _, message in STACK.breaches(found)] == [
        "'/b' wants its stack to be executable",
        "'/c' is of 32 bits and does not say what its stack is",
        "'/e\\n\\x1b[2J' wants its stack to be executable",
    ]
