"""The kernel's key service (keyrings(7)): trusted certificates and keys that only the kernel holds.

Shared with the initrd: standard library and core only. A secret goes in through a buffer and never
through argv.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import struct
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.core.secret import Secret
from machineos.errors import MissingError, SignatureError, ToolError

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDARY = ".secondary_trusted_keys"
MACHINE = ".machine"
PLATFORM = ".platform"
THREAD_KEYRING, USER_KEYRING = -1, -4

_ADD_KEY = {"x86_64": 248, "aarch64": 217}
_KEYCTL = {"x86_64": 250, "aarch64": 219}
_REVOKE, _SETPERM, _DESCRIBE, _LINK, _UNLINK, _SEARCH, _READ = 3, 5, 6, 8, 9, 10, 11
_POSSESSOR_ALL = 0x3F000000
_MOST_KEYS = 1024
_MAX_DESCRIPTION = 4096
_LINE = re.compile(r"^([0-9a-f]{8}) \S+ +\d+ +\S+ [0-9a-f]{8} +-?\d+ +-?\d+ keyring +(\S+?):")


def find_keyring(name: str, *, proc_keys: Path = Path("/proc/keys")) -> int:
    """Return the serial number of a system keyring. Raises: MissingError."""
    return parse_keyring(proc_keys.read_text("utf-8", "replace"), name)


def parse_keyring(text: str, name: str) -> int:
    """Return the serial number of a keyring in the text of /proc/keys. Raises: MissingError."""
    for line in text.splitlines():
        match = _LINE.match(line)
        if match and match[2] == name:
            return int(match[1], 16)
    raise MissingError(f"this kernel has no keyring {name}")


def list_keys(name: str, *, proc_keys: Path = Path("/proc/keys")) -> tuple[str, ...]:
    """Return the descriptions of what a system keyring holds, a keyring in it like a key.

    Of an X.509 certificate that is its subject and the identifier of its key. Raises: MissingError,
    ToolError.
    """
    return keys_in(find_keyring(name, proc_keys=proc_keys), what=name)


def keys_in(keyring: int, *, what: str) -> tuple[str, ...]:
    """Return the descriptions of what a keyring holds. Raises: ToolError."""
    return tuple(_description(serial, what=what) for serial in _serials(keyring, what=what))


def parse_description(text: bytes) -> str:
    """Return what a key calls itself, out of ``type;uid;gid;permissions;description``.

    Raises: ToolError.
    """
    fields = text.split(b";", 4)
    if len(fields) != 5:
        raise ToolError(f"keyctl: cannot read the description {text[:120]!r} of a key")
    return fields[4].decode("utf-8", "replace")


def _serials(keyring: int, *, what: str) -> tuple[int, ...]:
    room = ctypes.sizeof(ctypes.c_int32) * _MOST_KEYS
    buffer = ctypes.create_string_buffer(room)
    length = _keyctl(_READ, ctypes.c_int(keyring), buffer, ctypes.c_size_t(room), what=what)
    if length > room:
        raise ToolError(f"keyring {what} holds more than {_MOST_KEYS} keys")
    return struct.unpack(f"={length // 4}i", buffer.raw[: length // 4 * 4])


def _unlink(serial: int, keyring: int, *, what: str) -> None:
    _keyctl(_UNLINK, serial, ctypes.c_int(keyring), what=what)


def _description(serial: int, *, what: str) -> str:
    buffer = ctypes.create_string_buffer(_MAX_DESCRIPTION)
    length = _keyctl(_DESCRIBE, serial, buffer, ctypes.c_size_t(_MAX_DESCRIPTION), what=what)
    return parse_description(buffer.raw[: min(length, _MAX_DESCRIPTION) - 1])  # without the NUL


def add_certificate(keyring: int, der: bytes, *, what: str) -> int:
    """Put an X.509 certificate into a system keyring.

    The kernel accepts it only when a key that is already trusted there vouches for it.
    Raises: SignatureError when the kernel does not.
    """
    serial, code = _add_key("asymmetric", "", der, keyring)
    if serial > 0:
        return serial
    if code in {errno.ENOKEY, errno.EKEYREJECTED, errno.EPERM, errno.EBADMSG}:
        raise SignatureError(
            f"{what}: the kernel does not accept this certificate ({errno.errorcode[code]}): "
            "no key that it trusts vouches for it"
        )
    raise ToolError(f"{what}: add_key: {errno.errorcode.get(code, code)}")


def add_secret(description: str, secret: Secret) -> int:
    """Put a secret into root's user keyring, readable only by whoever possesses that keyring."""
    serial = _add_secret("user", description, secret, USER_KEYRING)
    _keyctl(_SETPERM, serial, _POSSESSOR_ALL, what=description)
    return serial


@contextmanager
def thread_key(description: str, payload: bytes) -> Iterator[None]:
    """Hold a key that only this thread can name, for the length of the block. Raises: ToolError."""
    serial, code = _add_key("user", description, payload, THREAD_KEYRING)
    if serial <= 0:
        raise ToolError(f"key {description}: add_key: {errno.errorcode.get(code, code)}")
    try:
        yield
    finally:
        _unlink(serial, THREAD_KEYRING, what=description)


@contextmanager
def kept_key(description: str, secret: Secret) -> Iterator[None]:
    """Hold a key that the kernel uses by its name and nobody reads (type ``logon``;
    ``service:name``): this thread's for the length of the block, whatever session keyring it has,
    and then in root's user keyring, unless the block ended by an error.

    Raises: ToolError.
    """
    serial = _add_secret("logon", description, secret, THREAD_KEYRING)
    try:
        yield
        # Only now: the key of a volume that is open under this name is not put out of its place.
        _keyctl(_LINK, serial, ctypes.c_int(USER_KEYRING), what=description)
    finally:
        _unlink(serial, THREAD_KEYRING, what=description)


def drop_key(description: str) -> None:
    """Take a key out of root's user keyring; one that is not there is no error.

    Raises: ToolError.
    """
    for serial in _serials(USER_KEYRING, what=description):
        with suppress(ToolError):  # one that was revoked is not told
            if _description(serial, what=description) == description:
                _unlink(serial, USER_KEYRING, what=description)


def read_secret(description: str) -> Secret:
    """Return a secret of root's user keyring. Raises: MissingError."""
    serial = _search(description)
    buffer = ctypes.create_string_buffer(4096)
    length = _keyctl(_READ, serial, buffer, ctypes.c_size_t(len(buffer)), what=description)
    found = Secret(memoryview(buffer).cast("B")[:length])
    ctypes.memset(buffer, 0, len(buffer))
    return found


def revoke_secret(description: str) -> None:
    """Make a secret unreadable for good. Raises: MissingError."""
    _keyctl(_REVOKE, _search(description), what=description)


def _search(description: str) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    serial: int = libc.syscall(
        _KEYCTL[os.uname().machine],
        _SEARCH,
        ctypes.c_int(USER_KEYRING),
        b"user",
        description.encode(),
        0,
    )
    if serial <= 0:
        raise MissingError(f"the kernel holds no key {description}")
    return serial


def _add_secret(kind: str, description: str, secret: Secret, keyring: int) -> int:
    """Return the serial number of a new key. Raises: ToolError."""
    payload = ctypes.create_string_buffer(len(secret))
    memoryview(payload).cast("B")[:] = secret.view()
    serial, code = _add_key(kind, description, payload, keyring)
    ctypes.memset(payload, 0, len(payload))
    if serial <= 0:
        raise ToolError(f"key {description}: add_key: {errno.errorcode.get(code, code)}")
    return serial


def _add_key(
    kind: str, description: str, payload: bytes | ctypes.Array[ctypes.c_char], keyring: int
) -> tuple[int, int]:
    libc = ctypes.CDLL(None, use_errno=True)
    serial: int = libc.syscall(
        _ADD_KEY[os.uname().machine],
        kind.encode(),
        description.encode(),
        payload,
        ctypes.c_size_t(len(payload)),
        ctypes.c_int(keyring),
    )
    return serial, ctypes.get_errno()


def _keyctl(operation: int, *arguments: object, what: str) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.syscall(_KEYCTL[os.uname().machine], operation, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise ToolError(f"key {what}: keyctl: {errno.errorcode.get(code, code)}")
    return result
