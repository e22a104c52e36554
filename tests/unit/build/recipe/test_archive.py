from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machineos.build.recipe.archive import Stream, read_members
from machineos.build.recipe.member import Kind, Limits, Member, Policy
from machineos.errors import ArchiveError
from unit.build.tarmaker import (
    END,
    extended,
    folder,
    hardlink,
    header,
    member,
    pax,
    record,
    sealed,
    symlink,
)

if TYPE_CHECKING:
    from collections.abc import Iterable


def read(
    data: bytes,
    *,
    chunk: int = 1 << 20,
    limits: Limits | None = None,
    policy: Policy | None = None,
) -> list[tuple[Member, bytes]]:
    limits = limits or Limits()
    chunks: Iterable[bytes] = (data[i : i + chunk] for i in range(0, len(data), chunk))
    stream = Stream(chunks, limit=limits.expanded, what="layer L")
    members = read_members(stream, what="layer L", limits=limits, policy=policy or Policy())
    return [(item, b"".join(bytes(piece) for piece in body)) for item, body in members]


def refused(
    data: bytes, message: str, *, limits: Limits | None = None, policy: Policy | None = None
) -> None:
    with pytest.raises(ArchiveError, match=message) as caught:
        read(data, limits=limits, policy=policy)
    assert caught.value.message.startswith("layer L: ")


@pytest.mark.parametrize("chunk", [1, 100, 511, 512, 513, 1 << 20])
def test_reads_what_an_archive_holds_whatever_the_chunks(chunk: int) -> None:
    data = folder("./") + folder("a/") + member("a/f", b"x" * 1000, mode=0o640)
    data += symlink("s", "/etc/passwd") + hardlink("h", "./a/f") + END
    found = read(data, chunk=chunk)
    assert [(item.kind, item.parts) for item, _ in found] == [
        (Kind.FOLDER, ()),
        (Kind.FOLDER, ("a",)),
        (Kind.FILE, ("a", "f")),
        (Kind.SYMLINK, ("s",)),
        (Kind.HARDLINK, ("h",)),
    ]
    assert found[2][1] == b"x" * 1000
    assert (found[2][0].mode, found[2][0].mtime) == (0o640, 1000)
    assert found[3][0].target == "/etc/passwd"
    assert found[4][0].link == ("a", "f")


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_reads_what_other_tools_write(form: int) -> None:
    target = io.BytesIO()
    long = "/".join(["folder" * 4] * (6 if form == tarfile.USTAR_FORMAT else 30))
    with tarfile.open(fileobj=target, mode="w", format=form) as archive:
        info = tarfile.TarInfo(f"{long}/file")
        info.size, info.uid, info.mtime = 5, 1000, 12345
        archive.addfile(info, io.BytesIO(b"hello"))
        link = tarfile.TarInfo("link")
        target_of_link = "x" * (90 if "/" not in long else 80)
        link.type, link.linkname = tarfile.SYMTYPE, target_of_link
        archive.addfile(link)
    found = read(target.getvalue())
    assert "/".join(found[0][0].parts) == f"{long}/file"
    assert (found[0][0].uid, found[0][0].mtime, found[0][1]) == (1000, 12345, b"hello")
    assert found[1][0].target == target_of_link


def test_takes_what_extended_headers_say() -> None:
    data = pax(path="ü/" + "n" * 200, uid="70000", mtime="77.5", size="3")
    data += member("short", b"abc") + END
    ((item, body),) = read(data)
    assert (item.parts, item.uid, item.mtime, body) == (("ü", "n" * 200), 70000, 77, b"abc")


def test_keeps_capabilities_and_drops_labels() -> None:
    capability = b"\x01\0\0\x02\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    data = extended(
        b"x",
        record("SCHILY.xattr.security.capability", capability)
        + record("SCHILY.xattr.security.selinux", "system_u:object_r:bin_t:s0")
        + record("SCHILY.xattr.user.note", "hi"),
    )
    ((item, _),) = read(data + member("f") + END)
    assert item.xattrs == {"security.capability": capability, "user.note": b"hi"}


@pytest.mark.parametrize(
    "name", ["trusted.overlay.opaque", "user.overlay.redirect", "security.ima", "system.posix_acl"]
)
def test_refuses_attributes_that_steer_the_kernel(name: str) -> None:
    data = extended(b"x", record(f"SCHILY.xattr.{name}", "y")) + member("f") + END
    refused(data, "member 'f' has the extended attribute")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../x", r"'\.\.'"),
        ("a/../../x", r"'\.\.'"),
        ("a/..", r"'\.\.'"),
        (".", "in the place of the root"),
        ("./", "in the place of the root"),
    ],
)
def test_refuses_names_that_climb(name: str, message: str) -> None:
    refused(member(name, b"x") + END, message)
    if "root" not in message:
        refused(member("ok", b"x") + hardlink("l", name) + END, message)


def test_absolute_names_begin_at_the_root_of_the_tree() -> None:
    """kaniko writes them, ``stacker`` and ``umoci insert`` write one for the root."""
    data = folder("/") + member("//etc/x", b"1") + hardlink("/etc/y", "/etc/x")
    found = [(item.parts, item.link) for item, _ in read(data + END)]
    assert found == [((), ()), (("etc", "x"), ()), (("etc", "y"), ("etc", "x"))]


def test_refuses_a_symbolic_link_in_the_place_of_the_root() -> None:
    # CVE-2021-29136: "." becomes a link, and all that follows is written through it.
    refused(symlink(".", "/etc") + member("passwd", b"x") + END, "symbolic link in the place of")


def test_refuses_paths_beyond_the_limits_of_a_path() -> None:
    # CVE-2025-4517: chains near PATH_MAX make path resolution stop checking.
    refused(pax(path="a/" * 2100 + "f") + member("f") + END, "longer than 4095")
    refused(pax(path="a/" * 200 + "f") + member("f") + END, "128 folders deep")
    refused(pax(path="n" * 256) + member("f") + END, "longer than 255")
    refused(pax(linkpath="l" * 4096) + symlink("s", "x") + END, "not a path")
    refused(pax(path=b"a\0b") + member("f") + END, "zero byte")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (b"3", "character device"),
        (b"4", "block device"),
        (b"6", "FIFO"),
        (b"S", "sparse"),
        (b"V", "unknown type"),
        (b"M", "unknown type"),
    ],
)
def test_refuses_what_is_neither_file_nor_folder_nor_link(kind: bytes, message: str) -> None:
    refused(header("dev/x", kind=kind) + END, f"member 'dev/x' is .*{message}")


def test_refuses_sparse_files_of_the_newer_kinds() -> None:
    refused(pax(GNU__sparse__major="1") + member("f") + END, "sparse")


def test_refuses_two_sizes() -> None:
    # CVE-2025-62518: readers that believe different sizes see different members.
    inner = member("hidden", b"evil")
    refused(pax(size=str(len(inner))) + header("f", size=0) + inner + END, "has two sizes: 0 and")
    refused(pax(size="0") + member("f", b"abc") + END, "has two sizes: 3 and 0")
    assert len(read(pax(size="3") + member("f", b"abc") + END)) == 1


@pytest.mark.parametrize("kind", [b"1", b"2", b"5"])
def test_a_size_of_what_has_no_content_counts_for_nothing(kind: bytes) -> None:
    """As for GNU tar and Go: all see the same members."""
    found = read(header("x", kind=kind, size=512, link="y") + member("f", b"1") + END)
    assert [(item.name, item.size) for item, _ in found] == [("x", 0), ("f", 1)]


def test_refuses_data_behind_the_end() -> None:
    refused(member("a") + END + member("b", b"x") + END, "behind its end mark")
    assert len(read(member("a") + END + bytes(20 * 512))) == 1


def test_says_when_an_archive_is_cut_off() -> None:
    whole = member("a", b"x" * 2000) + END
    refused(whole[:300], "cut off")
    refused(whole[:1000], "member 'a' is cut off")
    refused(pax(path="x") + END, "without its member")


@pytest.mark.parametrize("left", [0, 512, 1024])
def test_an_archive_may_end_without_its_mark(left: int) -> None:
    """``umoci insert`` writes none; that nothing is missing, the digests of the whole say."""
    assert len(read(member("a", b"x" * 2000) + bytes(left))) == 1
    assert read(bytes(left)) == []


def test_refuses_damaged_headers() -> None:
    block = bytearray(header("f"))
    block[0] ^= 1
    refused(bytes(block) + END, "wrong checksum")
    bad = header("f")
    refused(sealed(bad[:124] + b"9" * 12 + bad[136:]) + END, "size that is not a number")
    refused(sealed(bad[:124] + b"\xff" * 12 + bad[136:]) + END, "size that is out of range")
    refused(sealed(bad[:124] + b"\xfe" * 12 + bad[136:]) + END, "size that is not a number")


@pytest.mark.parametrize(("seconds", "time"), [(-3600, 0), (-1, 0), (1 << 40, 1 << 40)])
def test_times_of_the_gnu_kind_may_be_negative(seconds: int, time: int) -> None:
    number = seconds.to_bytes(12, "big", signed=True)
    raw = (b"\xff" if seconds < 0 else b"\x80") + number[1:]
    block = header("f")
    ((item, _),) = read(sealed(block[:136] + raw + block[148:]) + END)
    assert item.mtime == time


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (extended(b"x", b"99999 path=x\n"), "cannot be read"),
        (extended(b"x", b"path=x\n"), "cannot be read"),
        (extended(b"x", b"0 path=x\n"), "cannot be read"),
        (extended(b"x", record("path", "a") + record("path", "b")), "twice"),
        (extended(b"x", record("size", "-1")), "not a number"),
        (extended(b"x", record("uid", "1" * 19)), "not a number"),
        (pax(path="a") + pax(path="b"), "two extended headers"),
        (extended(b"g", record("path", "x")), "for all its members"),
        (header("x", kind=b"x", size=2 << 20), "extended header of 2097152"),
        (extended(b"x", record("SCHILY.acl.access", "user::rwx")), "access control"),
    ],
)
def test_refuses_strange_extended_headers(data: bytes, message: str) -> None:
    refused(data + member("f") + END, message)


def test_ignores_comments_for_all_members() -> None:
    assert len(read(extended(b"g", record("comment", "a commit")) + member("f") + END)) == 1


def test_refuses_owners_out_of_range() -> None:
    refused(pax(uid=str(1 << 32)) + member("f") + END, "owner that is out of range")


def test_bounds_members_and_expanded_bytes() -> None:
    data = b"".join(member(f"f{i}") for i in range(10)) + END
    refused(data, "more than 5 members", limits=Limits(members=5))
    refused(member("f", bytes(5000)) + END, "more than 2000 bytes", limits=Limits(expanded=2000))


def test_set_user_id_follows_the_policy() -> None:
    data = member("su", b"x", mode=0o4755) + member("s", mode=0o2755) + folder("d/", 0o2755) + END
    stripped = [(item.mode, item.stripped) for item, _ in read(data)]
    assert stripped == [(0o755, True), (0o755, True), (0o2755, False)]
    kept = [item.mode for item, _ in read(data, policy=Policy(setuid="keep"))]
    assert kept == [0o4755, 0o2755, 0o2755]
    refused(data, "member 'su' is set-user-id", policy=Policy(setuid="refuse"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (".wh...", r"a whiteout of '\.\.'"),
        ("a/.wh..", r"a whiteout of '\.'"),
        (".wh.", "a whiteout of ''"),
        (".wh.x/y", "inside a whiteout"),
    ],
)
def test_refuses_whiteouts_of_what_is_no_name(name: str, message: str) -> None:
    refused(member(name) + END, message)


def test_notes_of_storage_drivers_are_nothing() -> None:
    """AUFS left them in layers; every unpacker passes them by."""
    notes = member(".wh..wh.aufs") + folder(".wh..wh.plnk/") + member(".wh..wh.plnk/1.2", b"x")
    found = read(notes + member("a/.wh..wh.orph", b"y") + member("f", b"z") + END)
    assert [item.kind for item, _ in found] == [Kind.NOTHING] * 4 + [Kind.FILE]


def test_reads_whiteouts() -> None:
    found = read(member("a/.wh.b") + member("a/.wh..wh..opq") + END)
    assert [(item.kind, item.parts) for item, _ in found] == [
        (Kind.WHITEOUT, ("a", "b")),
        (Kind.OPAQUE, ("a",)),
    ]
    refused(member(".wh.x", b"content") + END, "named like a whiteout")
    refused(symlink(".wh.x", "y") + END, "named like a whiteout")


_SAMPLE = (
    folder("a/")
    + pax(path="a/" + "n" * 150, size="700")
    + member("a/n", b"y" * 700)
    + extended(b"L", b"g" * 300 + b"\0")
    + member("g", b"z")
    + symlink("s", "t")
    + END
)


@settings(deadline=None)
@given(st.integers(0, len(_SAMPLE) - 1), st.binary(min_size=1, max_size=12), st.booleans())
def test_damage_is_an_archive_error_or_nothing(at: int, data: bytes, reseal: bool) -> None:
    damaged = _SAMPLE[:at] + data + _SAMPLE[at + len(data) :]
    if reseal:
        start = at // 512 * 512
        damaged = damaged[:start] + sealed(damaged[start : start + 512]) + damaged[start + 512 :]
    try:
        found = read(damaged)
    except ArchiveError:
        return
    for item, _ in found:
        assert ".." not in item.parts
        assert all(part and "/" not in part and "\0" not in part for part in item.parts)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (header("f")[:300], "ends within a header: it is cut off"),
        (pax(path="x") + END, "ends after an extended header without its member"),
        (
            extended(b"L", b"g" * 300 + b"\0") + END,
            "ends after an extended header without its member",
        ),
        (extended(b"x", b"12 path=abc\n")[:-505], "ends within an extended header: it is cut off"),
        (
            b"x" * 512,
            "has a checksum that is not a number",
        ),
        (
            sealed(header("f"))[:148] + b"0000001\0" + header("f")[156:] + END,
            "has a header with a wrong checksum: damaged, or not a tar archive",
        ),
        (member("a") + END + b"x", "holds data behind its end mark"),
        (extended(b"g", record("path", "x")) + END, "sets 'path' for all its members"),
    ],
)
def test_what_is_wrong_with_an_archive_as_a_whole(data: bytes, message: str) -> None:
    with pytest.raises(ArchiveError) as caught:
        read(data)
    assert caught.value.message == f"layer L: {message}"


PAX, UNREADABLE = "PaxHeaders/x", "has an extended header that cannot be read"


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        (extended(b"x", b"12 path=abc\n" * 2), PAX, "gives 'path' twice in one extended header"),
        (extended(b"x", b"x path=a\n"), PAX, UNREADABLE),
        (extended(b"x", b"9 =value\n"), PAX, UNREADABLE),
        (extended(b"x", b"8 novalu\n"), PAX, UNREADABLE),
        (pax(uid="1.5") + member("f"), "f", "has a uid that is not a number"),
        (pax(gid="x") + member("f"), "f", "has a gid that is not a number"),
        (pax(mtime="1.x") + member("f"), "f", "has a mtime that is not a number"),
        (pax(size="9" * 19) + member("f"), "f", "has a size that is not a number"),
        (pax(GNU__sparse__x="1") + member("f"), "f", "is a sparse file"),
        (pax(SCHILY__acl__x="1") + member("f"), "f", "has an access control list"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_one_member(data: bytes, name: str, message: str) -> None:
    with pytest.raises(ArchiveError) as caught:
        read(data + END)
    assert caught.value.message == f"layer L: member {name!r} {message}"
    if "sparse" in message or "access" in message:
        assert caught.value.hint


def test_numbers_that_octal_digits_cannot_hold() -> None:
    block = header("f")
    binary = b"\x80" + (70_000_123).to_bytes(7, "big")
    ((item, _),) = read(sealed(block[:108] + binary + block[116:]) + END)
    assert item.uid == 70_000_123
    ((item, _),) = read(sealed(block[:108] + bytes(8) + block[116:]) + END)
    assert item.uid == 0
    ((item, _),) = read(sealed(block[:108] + b"   17 \0 " + block[116:]) + END)
    assert item.uid == 0o17


def test_a_size_is_in_the_extended_header_only_when_the_old_field_is_too_small() -> None:
    large = 8**11
    whole = pax(size=str(large)) + header("f", size=0)
    with pytest.raises(ArchiveError, match="member 'f' is cut off"):
        read(whole + b"x" * 512)
    with pytest.raises(ArchiveError, match="has two sizes: 0 and 8589934591"):
        read(pax(size=str(large - 1)) + header("f", size=0) + END)


def test_an_extended_header_is_as_large_as_it_may_be() -> None:
    comment = "c" * ((1 << 20) - 20)
    assert len(read(extended(b"x", record("comment", comment)) + member("f") + END)) == 1
    refused(header("x", kind=b"x", size=(1 << 20) + 1), "has an extended header of 1048577 bytes")


@pytest.mark.parametrize(
    "key",
    [
        "atime", "ctime", "comment", "uname", "gname", "hdrcharset", "charset", "SCHILY.dev",
        "SCHILY.ino", "SCHILY.nlink", "SCHILY.fflags", "LIBARCHIVE.creationtime",
    ],
)  # fmt: skip
def test_what_means_nothing_may_be_said_for_all_members(key: str) -> None:
    assert len(read(extended(b"g", record(key, "x")) + member("f") + END)) == 1


def test_a_prefix_stands_before_a_name_in_posix_archives_only() -> None:
    ((item, _),) = read(header("f", prefix=b"a/b") + END)
    assert item.parts == ("a", "b", "f")
    old = header("f", prefix=b"a/b")
    ((item, _),) = read(sealed(old[:257] + b"ustar  \0" + old[265:]) + END)
    assert item.parts == ("f",)
    full = b"n" * 100
    ((item, _),) = read(header(full) + END)
    assert item.parts == ("n" * 100,)


def test_a_bound_is_reached_before_it_is_passed() -> None:
    data = b"".join(member(f"f{i}") for i in range(5)) + END
    assert len(read(data, limits=Limits(members=5))) == 5
    refused(data, "has more than 4 members", limits=Limits(members=4))
    assert read(data, limits=Limits(expanded=len(data)))
    refused(
        data, f"expands to more than {len(data) - 1} bytes", limits=Limits(expanded=len(data) - 1)
    )
