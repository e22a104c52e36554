"""What may be a member of an image, wherever it comes from: rules over plain fields.

Nothing here reads anything. Invariant: a ``Member`` has a relative name without ``..``, one
unambiguous size, and is a file, a folder, a symbolic link, a hard link or a whiteout; devices,
FIFOs, sparse files and what the policy forbids are ``ArchiveError``, which names archive and
member. Names are bytes outside, and text with surrogate escapes in here. Follows the OCI image
specification, "Layer Filesystem Changeset".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from machineos.errors import ArchiveError

MAX_NAME = 4095
MAX_COMPONENT = 255
MAX_DEPTH = 128
WHITEOUT = ".wh."
_MAX_XATTRS = 64 << 10
_MAX_ID = (1 << 32) - 2
_OPAQUE = ".wh..wh..opq"
_NOTES = ".wh..wh."  # of AUFS, for itself; but for the one above they mean nothing to anybody else
_SPECIAL = 0o6000  # set-user-id, set-group-id


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one image may expand to. All of it counts over all its layers."""

    expanded: int = 16 << 30
    members: int = 1_000_000


@dataclass(frozen=True, slots=True)
class Policy:
    """What happens to members that are legal but dangerous.

    ``setuid``: set-user-id and set-group-id bits of files. ``strip`` is the default for images of
    foreign origin: a service runs without new privileges, so the bits could only serve an attacker.
    """

    setuid: Literal["keep", "strip", "refuse"] = "strip"


class Kind(Enum):
    """What a member is."""

    FILE = "file"
    FOLDER = "folder"
    SYMLINK = "symbolic link"
    HARDLINK = "hard link"
    WHITEOUT = "whiteout"
    OPAQUE = "opaque whiteout"
    NOTHING = "note of a storage driver"


@dataclass(frozen=True, slots=True)
class Member:
    """One vetted member. ``parts`` is its name, () for the root; for a whiteout the name that goes.

    ``target`` is the text of a symbolic link; ``link`` the parts of a hard link's other name.
    """

    kind: Kind
    parts: tuple[str, ...]
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int = 0
    target: str = ""
    link: tuple[str, ...] = ()
    xattrs: dict[str, bytes] = field(default_factory=dict)
    stripped: bool = False

    @property
    def name(self) -> str:
        """The name for messages."""
        return "/".join(self.parts) or "."


@dataclass(slots=True)
class Header:
    """The fields of one member, extensions applied, nothing vetted yet."""

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    link: bytes
    xattrs: dict[str, bytes]
    device: bool = False  # a device number that is not 0:0


_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"1": Kind.HARDLINK,
    b"2": Kind.SYMLINK,
    b"5": Kind.FOLDER,
}
_DEVICE = "leave it out: services get the devices that they may use in a /dev of their own"
# What is refused for good: why, and what to do instead.
_REFUSED = {
    b"3": ("is a character device", _DEVICE),
    b"4": ("is a block device", _DEVICE),
    b"6": ("is a FIFO", "leave it out: let the program make it when it starts (mkfifo)"),
    b"S": ("is a sparse file", "pack it whole: tar without --sparse (-S)"),
}
_OTHER_TYPE = "pack the layer again as POSIX has it: tar --format=pax"
_ATTRIBUTE = (
    "remove it before the image is built (setfattr -x NAME FILE): kept are security.capability and "
    "user.*, but for those of overlay file systems"
)
_SETUID = "--setuid strip takes the bits away, --setuid keep leaves them"
_UP = "pack names below one folder: tar -C FOLDER ."


def encode(text: str) -> bytes:
    """Return a name as it is on a disk or in an archive."""
    return text.encode("utf-8", "surrogateescape")


def decode(raw: bytes) -> str:
    """Return a name as text; ``encode`` gives the same bytes again."""
    return raw.decode("utf-8", "surrogateescape")


def from_overlay(header: Header) -> bool:
    """Make overlayfs's whiteout, a character device 0:0, one of the image specification; return
    whether it hides what lower layers have in a folder, which overlayfs says with an attribute."""
    if header.kind == b"3" and not header.device:
        parent, slash, last = header.name.rpartition(b"/")
        header.kind, header.name = b"0", parent + slash + encode(WHITEOUT) + last
    said = [header.xattrs.pop(f"{space}.overlay.opaque", b"") for space in ("trusted", "user")]
    return b"y" in said and header.kind == b"5"


def vet(header: Header, what: str, policy: Policy) -> Member:
    """Turn raw fields into a member that can be trusted to be well formed. Raises: ArchiveError."""
    kind, parts = _kind_and_name(header, what)
    if min(header.uid, header.gid) < 0 or max(header.uid, header.gid) > _MAX_ID:
        raise refusal(what, header.name, "has an owner that is out of range")
    if header.size < 0:
        raise refusal(what, header.name, "has a size that is out of range")
    if kind is not Kind.FILE:
        header.size = 0  # what stands there counts for nothing, as for GNU tar and Go
    mode = _mode(header, kind, what, policy)
    kind, parts = _whiteout(kind, parts, header.size, what)
    link = header.link
    return Member(
        kind=kind,
        parts=parts,
        mode=mode,
        uid=header.uid,
        gid=header.gid,
        mtime=max(0, header.mtime),
        size=header.size,
        target=_target(link, what, header.name) if kind is Kind.SYMLINK else "",
        link=_parts(link, what, header.name) if kind is Kind.HARDLINK else (),
        xattrs=_xattrs(header.xattrs, what, header.name),
        stripped=mode != header.mode & 0o7777,
    )


def refusal(what: str, name: bytes, message: str, *, hint: str = "") -> ArchiveError:
    """Return the error about the member ``name`` of the archive ``what``, or about all of it;
    ``hint`` says what to do instead."""
    shown = name[:200].decode("utf-8", "backslashreplace")
    about = f"{what}: member {shown!r}" if name else f"{what}:"
    return ArchiveError(f"{about} {message}", hint=hint)


def sparse(what: str, name: bytes) -> ArchiveError:
    """Return the error about a member that leaves its holes out."""
    reason, hint = _REFUSED[b"S"]
    return refusal(what, name, reason, hint=hint)


def _kind_and_name(header: Header, what: str) -> tuple[Kind, tuple[str, ...]]:
    name = header.name
    kind = _KINDS.get(header.kind)
    if kind is None:
        unknown = (f"is of the unknown type {header.kind!r}", _OTHER_TYPE)
        reason, hint = _REFUSED.get(header.kind, unknown)
        raise refusal(what, name, f"{reason}, which an image must not hold", hint=hint)
    if header.kind == b"\0" and name.endswith(b"/"):
        kind = Kind.FOLDER
    parts = _parts(name, what, name)
    if not parts and kind is not Kind.FOLDER:
        raise refusal(what, name, f"is a {kind.value} in the place of the root")
    return kind, parts


def _mode(header: Header, kind: Kind, what: str, policy: Policy) -> int:
    mode = header.mode & 0o7777
    if kind is not Kind.FILE or not mode & _SPECIAL:
        return mode
    match policy.setuid:
        case "keep":
            return mode
        case "strip":
            return mode & ~_SPECIAL
        case "refuse":
            raise refusal(what, header.name, "is set-user-id or set-group-id", hint=_SETUID)


def _parts(raw: bytes, what: str, name: bytes) -> tuple[str, ...]:
    if b"\0" in raw or not raw:
        raise refusal(what, name, "has an empty name or one with a zero byte")
    if len(raw) > MAX_NAME:
        raise refusal(what, name, f"has a name longer than {MAX_NAME} bytes")
    pieces = [part for part in raw.split(b"/") if part not in {b"", b"."}]
    reason = _why_not_parts(pieces)
    if reason:
        raise refusal(what, name, reason, hint=_UP if ".." in reason else "")
    return tuple(decode(part) for part in pieces)


def _why_not_parts(pieces: list[bytes]) -> str:
    if b".." in pieces:
        return "has a name with '..'"
    if max(map(len, pieces), default=0) > MAX_COMPONENT:
        return f"has a part of its name longer than {MAX_COMPONENT} bytes"
    if len(pieces) > MAX_DEPTH:
        return f"is more than {MAX_DEPTH} folders deep"
    inside = [part for part in pieces[:-1] if part.startswith(WHITEOUT.encode())]
    if any(not part.startswith(_NOTES.encode()) for part in inside):
        return "is inside a whiteout"
    return ""


def _whiteout(
    kind: Kind, parts: tuple[str, ...], size: int, what: str
) -> tuple[Kind, tuple[str, ...]]:
    notes = [part for part in parts if part.startswith(_NOTES)]
    if notes and (notes != [_OPAQUE] or parts[-1] != _OPAQUE):
        return Kind.NOTHING, parts
    if not parts or not parts[-1].startswith(WHITEOUT):
        return kind, parts
    name = encode("/".join(parts))
    if kind is not Kind.FILE or size:
        raise refusal(what, name, "is named like a whiteout, but is not an empty file")
    if parts[-1] == _OPAQUE:
        return Kind.OPAQUE, parts[:-1]
    hidden = parts[-1].removeprefix(WHITEOUT)
    if hidden in {"", ".", ".."}:
        raise refusal(what, name, f"is a whiteout of {hidden!r}")
    return Kind.WHITEOUT, (*parts[:-1], hidden)


def _target(raw: bytes, what: str, name: bytes) -> str:
    if not raw or b"\0" in raw or len(raw) > MAX_NAME:
        raise refusal(what, name, "is a symbolic link with a target that is not a path")
    return decode(raw)


def _xattrs(raw: dict[str, bytes], what: str, name: bytes) -> dict[str, bytes]:
    """Keep file capabilities and user attributes; labels of the build host mean nothing elsewhere;
    all else could steer overlayfs or the kernel's integrity code."""
    result = {}
    for key, value in sorted(raw.items()):
        # Neither can be kept: labels are the build host's, and squashfs stores no access lists.
        if key == "security.selinux" or key.startswith(("system.posix_acl_", "com.apple.")):
            continue
        private = key.startswith(("user.overlay.", "user.fuseoverlayfs.", "user.containers."))
        if key != "security.capability" and (not key.startswith("user.") or private):
            message = f"has the extended attribute {key[:80]!r}"
            raise refusal(what, name, message, hint=_ATTRIBUTE)
        if len(value) > _MAX_XATTRS or len(key) > MAX_COMPONENT:
            raise refusal(what, name, f"has an extended attribute {key[:80]!r} that is too large")
        result[key] = value
    return result
