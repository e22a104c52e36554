"""What is in a folder, member by member, vetted by the same rules as an archive's.

For layers that are file systems and were unpacked. Invariant: only the folder itself is read; no
link in it is followed.
"""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from typing import TYPE_CHECKING

from machineos.build.recipe.member import (
    WHITEOUT,
    Header,
    Kind,
    Limits,
    Member,
    Policy,
    encode,
    vet,
)
from machineos.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CHUNK = 1 << 18


def folder_members(
    tree: Path, *, what: str, limits: Limits, policy: Policy
) -> Iterator[tuple[Member, Iterator[memoryview]]]:
    """Yield what is in the folder ``tree`` the way ``read_members`` does, vetted by the same rules.

    For layers that are file systems: whiteouts are overlayfs's there, a character device 0/0 and an
    attribute. ``tree`` must not change meanwhile. Raises: ArchiveError.
    """
    seen: dict[tuple[int, int], bytes] = {}
    left = limits.members
    pending = [(tree, b".")]
    while pending:
        path, name = pending.pop()
        left -= 1
        if left < 0:
            raise ArchiveError(f"{what}: has more than {limits.members} members")
        status = path.lstat()
        header, opaque = _folder_header(path, name, status, seen)
        member = vet(header, what, policy)
        yield member, _contents(path) if member.kind is Kind.FILE else iter(())
        if opaque:
            yield replace(member, kind=Kind.OPAQUE), iter(())
        if member.kind is Kind.FOLDER:
            pending += sorted(
                ((child, name + b"/" + os.fsencode(child.name))) for child in path.iterdir()
            )[::-1]


def _folder_header(
    path: Path, name: bytes, status: os.stat_result, seen: dict[tuple[int, int], bytes]
) -> tuple[Header, bool]:
    kinds = {stat.S_IFREG: b"0", stat.S_IFLNK: b"2", stat.S_IFDIR: b"5", stat.S_IFBLK: b"4"}
    kinds |= {stat.S_IFCHR: b"3", stat.S_IFIFO: b"6"}
    kind = kinds.get(stat.S_IFMT(status.st_mode), b"s")
    keys = os.listxattr(path, follow_symlinks=False)
    xattrs = {key: os.getxattr(path, key, follow_symlinks=False) for key in keys}
    opaque = {xattrs.pop(f"{space}.overlay.opaque", b"") for space in ("trusted", "user")}
    link = os.fsencode(path.readlink()) if kind == b"2" else b""
    if kind == b"0" and status.st_nlink > 1:
        first = seen.setdefault((status.st_dev, status.st_ino), name)
        if first != name:
            kind, link = b"1", first
    if kind == b"3" and status.st_rdev == 0:
        parent, _, last = name.rpartition(b"/")
        kind, name = b"0", parent + b"/" + encode(WHITEOUT) + last
    header = Header(
        name=name,
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if kind == b"0" else 0,
        mtime=int(status.st_mtime),
        link=link,
        xattrs=xattrs,
    )
    return header, b"y" in opaque


def _contents(path: Path) -> Iterator[memoryview]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield memoryview(chunk)
