"""Ways by which a running program gets code that nobody signed: each a row, tried in a child.

Runs on an appliance and, as the control, on the machine of the tests, by whatever Python is there;
so it imports nothing of ours. ``python codeprobe.py FILE`` prints a JSON object: for each row
``RAN``, or the name of the error with which it was refused. FILE is an executable file on a volume
that is signed; on the machine of the tests, any.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

CODE = bytes.fromhex("b82a000000c3")  # mov eax, 42; ret
ANSWER = 42
PAGE = 4096
R, W, X = mmap.PROT_READ, mmap.PROT_WRITE, mmap.PROT_EXEC
SHARED, PRIVATE, ANONYMOUS = 1, 2, 0x20
READ_IMPLIES_EXEC = 0x0400000
SHM_EXEC, IPC_PRIVATE, IPC_RMID = 0o100000, 0, 0
TRACEME, POKETEXT, CONT = 0, 4, 7
FAILED = ctypes.c_void_p(-1).value


class Vector(ctypes.Structure):
    """struct iovec: a part of memory."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.shmat.restype = libc.sbrk.restype = ctypes.c_void_p
libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)
libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
libc.sbrk.argtypes = (ctypes.c_long,)
libc.personality.argtypes = (ctypes.c_ulong,)
libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
libc.ptrace.restype = libc.process_vm_writev.restype = ctypes.c_long
libc.process_vm_writev.argtypes = (
    ctypes.c_int, ctypes.POINTER(Vector), ctypes.c_ulong, ctypes.POINTER(Vector), ctypes.c_ulong,
    ctypes.c_ulong,
)  # fmt: skip


def fail() -> NoReturn:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))


def mapped(length: int, protection: int, flags: int, descriptor: int = -1) -> int:
    address = libc.mmap(None, length, protection, flags, descriptor, 0)
    if address in {None, FAILED}:
        fail()
    return int(address)


def protect(address: int, protection: int) -> None:
    if libc.mprotect(address, PAGE, protection) != 0:
        fail()


def put(address: int) -> None:
    ctypes.memmove(address, CODE, len(CODE))


def call(address: int) -> int:
    return int(ctypes.CFUNCTYPE(ctypes.c_int)(address)())


def anonymous(_file: str) -> int:
    address = mapped(PAGE, R | W | X, PRIVATE | ANONYMOUS)
    put(address)
    return call(address)


def anonymous_later(_file: str) -> int:
    address = mapped(PAGE, R | W, PRIVATE | ANONYMOUS)
    put(address)
    protect(address, R | X)
    return call(address)


def memfd(_file: str) -> int:
    descriptor = os.memfd_create("code", 0x8)  # MFD_NOEXEC_SEAL is about execve, not about maps
    os.write(descriptor, CODE)
    return call(mapped(PAGE, R | X, SHARED, descriptor))


def dev_zero(_file: str) -> int:
    address = mapped(PAGE, R | W | X, PRIVATE, os.open("/dev/zero", os.O_RDWR))
    put(address)
    return call(address)


def shared_memory(_file: str) -> int:
    number = libc.shmget(IPC_PRIVATE, PAGE, 0o700)
    if number < 0:
        fail()
    address = libc.shmat(number, None, SHM_EXEC)
    error = ctypes.get_errno()
    libc.shmctl(number, IPC_RMID, None)
    if address in {None, FAILED}:
        raise OSError(error, os.strerror(error))
    put(int(address))
    return call(int(address))


def signed_at_once(file: str) -> int:
    address = mapped(PAGE, R | W | X, PRIVATE, os.open(file, os.O_RDONLY))
    put(address)
    return call(address)


def signed_then_executable(file: str) -> int:
    address = mapped(PAGE, R | W, PRIVATE, os.open(file, os.O_RDONLY))
    put(address)
    protect(address, R | X)
    return call(address)


def signed_then_writable(file: str) -> int:
    address = mapped(PAGE, R | X, PRIVATE, os.open(file, os.O_RDONLY))
    protect(address, R | W | X)
    put(address)
    return call(address)


def signed_there_and_back(file: str) -> int:
    address = mapped(PAGE, R | X, PRIVATE, os.open(file, os.O_RDONLY))
    protect(address, R | W)
    put(address)
    protect(address, R | X)
    return call(address)


def personality(_file: str) -> int:
    if libc.personality(READ_IMPLIES_EXEC) < 0:
        fail()
    address = libc.sbrk(2 * PAGE)
    if address in {None, FAILED}:
        fail()
    put(int(address))
    return call(int(address))


def own_memory(file: str) -> int:
    address = mapped(PAGE, R | X, PRIVATE, os.open(file, os.O_RDONLY))
    descriptor = os.open("/proc/self/mem", os.O_RDWR)
    os.pwrite(descriptor, CODE, address)
    return call(address)


def written_by_call(file: str) -> int:
    """The call that writes to the memory of a process does so only where that may write itself."""
    code = ctypes.create_string_buffer(CODE)
    ours = Vector(ctypes.addressof(code), len(CODE))
    data = mapped(PAGE, R | W, PRIVATE | ANONYMOUS)
    address = mapped(PAGE, R | X, PRIVATE, os.open(file, os.O_RDONLY))
    for place in (data, address):
        theirs = Vector(place, len(CODE))
        if libc.process_vm_writev(os.getpid(), ours, 1, theirs, 1, 0) != len(CODE):
            fail()
        assert ctypes.string_at(place, len(CODE)) == CODE
    return call(address)


def traced(file: str) -> int:
    """A child lets itself be traced, and gets code into a page that it may not write to."""
    address = mapped(PAGE, R | X, PRIVATE, os.open(file, os.O_RDONLY))
    child = os.fork()
    if child == 0:
        if libc.ptrace(TRACEME, 0, None, None) != 0:
            os._exit(ctypes.get_errno())
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(call(address))
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        raise OSError(os.WEXITSTATUS(status), os.strerror(os.WEXITSTATUS(status)))
    word = int.from_bytes(CODE.ljust(8, b"\x90"), "little")
    if libc.ptrace(POKETEXT, child, address, word) != 0:
        error = ctypes.get_errno()
        os.kill(child, signal.SIGKILL)
        raise OSError(error, os.strerror(error))
    libc.ptrace(CONT, child, None, None)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


ROWS: dict[str, Callable[[str], int]] = {
    one.__name__: one
    for one in (
        anonymous, anonymous_later, memfd, dev_zero, shared_memory, signed_at_once,
        signed_then_executable, signed_then_writable, signed_there_and_back, personality,
        own_memory, traced, written_by_call,
    )
}  # fmt: skip


def tried(row: Callable[[str], int], file: str) -> str:
    """Return how a row ends, in a process of its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = "RAN" if row(file) == ANSWER else "another answer"
        except OSError as error:
            said = errno.errorcode.get(error.errno or 0, str(error))
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return said or f"ended by {signal.Signals(os.WTERMSIG(status)).name}"


def main(file: str) -> None:
    """Print how every row ends."""
    print(json.dumps({name: tried(row, file) for name, row in ROWS.items()}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
