"""Tar archives byte by byte, so that a test can lie in any field."""

from __future__ import annotations

import os
from typing import TypedDict, Unpack

BLOCK = 512
END = bytes(2 * BLOCK)


class Fields(TypedDict, total=False):
    """The fields of a header that a member may be given."""

    kind: bytes
    mode: int
    link: str | bytes
    uid: int
    gid: int
    mtime: int
    prefix: bytes
    device: tuple[int, int]


class FolderFields(TypedDict, total=False):
    """Those of a folder."""

    uid: int
    gid: int
    mtime: int


def header(
    name: str | bytes,
    *,
    kind: bytes = b"0",
    size: int = 0,
    mode: int = 0o644,
    link: str | bytes = b"",
    uid: int | None = None,
    gid: int | None = None,
    mtime: int = 1000,
    prefix: bytes = b"",
    device: tuple[int, int] = (0, 0),
) -> bytes:
    """One header block with a correct checksum."""
    raw = os.fsencode(name)
    target = os.fsencode(link)
    owner = os.getuid() if uid is None else uid
    group = os.getgid() if gid is None else gid
    block = bytearray(BLOCK)
    block[0 : len(raw)] = raw
    block[100:108] = b"%07o\0" % mode
    block[108:116] = b"%07o\0" % owner
    block[116:124] = b"%07o\0" % group
    block[124:136] = b"%011o\0" % size
    block[136:148] = b"%011o\0" % mtime
    block[156:157] = kind
    block[157 : 157 + len(target)] = target
    block[257:265] = b"ustar\x0000"
    if kind in {b"3", b"4"}:
        block[329:337], block[337:345] = (b"%07o\0" % number for number in device)
    block[345 : 345 + len(prefix)] = prefix
    assert len(block) == BLOCK
    return sealed(bytes(block))


def sealed(block: bytes) -> bytes:
    """The block with its checksum made right."""
    total = sum(block[:148]) + sum(block[156:]) + 8 * 32
    return block[:148] + b"%06o\0 " % total + block[156:]


def padded(data: bytes) -> bytes:
    """Data up to whole blocks."""
    return data + bytes(-len(data) % BLOCK)


def member(name: str | bytes, data: bytes = b"", **fields: Unpack[Fields]) -> bytes:
    """Header and content of a file, or of what ``kind`` says."""
    return header(name, size=len(data), **fields) + padded(data)


def folder(name: str, mode: int = 0o755, **fields: Unpack[FolderFields]) -> bytes:
    """A folder."""
    return header(name, kind=b"5", mode=mode, **fields)


def symlink(name: str, target: str) -> bytes:
    """A symbolic link."""
    return header(name, kind=b"2", link=target, mode=0o777)


def hardlink(name: str, target: str) -> bytes:
    """A hard link."""
    return header(name, kind=b"1", link=target)


def pax(**records: str | bytes) -> bytes:
    """An extended header for the next member; ``__`` in a key stands for a dot."""
    pairs = ((key.replace("__", "."), value) for key, value in records.items())
    return extended(b"x", b"".join(record(key, value) for key, value in pairs))


def extended(kind: bytes, data: bytes) -> bytes:
    """An extended header of that kind."""
    return member("PaxHeaders/x", data, kind=kind)


def record(key: str, value: str | bytes) -> bytes:
    """One pax record, its length included."""
    body = b" " + key.encode() + b"=" + os.fsencode(value) + b"\n"
    length = len(body)
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body
