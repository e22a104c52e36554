"""The rules for members, from plain fields: every refusal in its words, every bound."""

from __future__ import annotations

from typing import Any

import pytest

from machineos.build.recipe.member import (
    Header,
    Kind,
    Limits,
    Member,
    Policy,
    decode,
    encode,
    refusal,
    vet,
)
from machineos.errors import ArchiveError

CAPABILITY = b"\x01\0\0\x02"


def header(name: bytes = b"d/f", kind: bytes = b"0", **fields: Any) -> Header:  # noqa: ANN401 (any field)
    given = {
        "mode": 0o644, "uid": 1, "gid": 2, "size": 0, "mtime": 3, "link": b"", "xattrs": {},
        **fields,
    }  # fmt: skip
    return Header(name=name, kind=kind, **given)


def refused(message: str, one: Header, policy: Policy | None = None) -> None:
    with pytest.raises(ArchiveError) as caught:
        vet(one, "layer", policy or Policy())
    shown = one.name.decode("utf-8", "backslashreplace")
    assert caught.value.message == f"layer: member {shown!r} {message}"


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        (b"0", b"a", Kind.FILE),
        (b"\0", b"a", Kind.FILE),
        (b"7", b"a", Kind.FILE),
        (b"\0", b"a/", Kind.FOLDER),
        (b"0", b"a/", Kind.FILE),
        (b"5", b"a", Kind.FOLDER),
    ],
)
def test_kinds(kind: bytes, name: bytes, expected: Kind) -> None:
    assert vet(header(name, kind), "layer", Policy()) == Member(expected, ("a",), 0o644, 1, 2, 3)


def test_links() -> None:
    soft = vet(header(b"s", b"2", link=b"/etc/\xff"), "layer", Policy())
    assert (soft.kind, soft.target, soft.link) == (Kind.SYMLINK, "/etc/\udcff", ())
    hard = vet(header(b"h", b"1", link=b"./d//f"), "layer", Policy())
    assert (hard.kind, hard.target, hard.link) == (Kind.HARDLINK, "", ("d", "f"))
    for link in (b"", b"a\0b", b"l" * 4096):
        refused(
            "is a symbolic link with a target that is not a path", header(b"s", b"2", link=link)
        )
    assert vet(header(b"s", b"2", link=b"l" * 4095), "layer", Policy()).target == "l" * 4095
    assert vet(header(b"h", b"1", link=b"/d/f"), "layer", Policy()).link == ("d", "f")


@pytest.mark.parametrize(
    ("one", "hint"),
    [
        (header(kind=b"3"), "leave it out"),
        (header(kind=b"4"), "leave it out"),
        (header(kind=b"6"), "mkfifo"),
        (header(kind=b"S"), "tar without --sparse"),
        (header(kind=b"V"), "tar --format=pax"),
        (header(xattrs={"trusted.overlay.opaque": b"y"}), "setfattr -x"),
        (header(b"../x"), "tar -C FOLDER ."),
        (header(mode=0o4755), "--setuid strip"),
    ],
)
def test_what_is_refused_for_good_says_what_to_do_instead(one: Header, hint: str) -> None:
    with pytest.raises(ArchiveError) as caught:
        vet(one, "h/x:1: layer sha256:ab", Policy(setuid="refuse"))
    assert caught.value.message.startswith("h/x:1: layer sha256:ab: member ")
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (b"3", "is a character device"),
        (b"4", "is a block device"),
        (b"6", "is a FIFO"),
        (b"S", "is a sparse file"),
        (b"V", "is of the unknown type b'V'"),
    ],
)
def test_what_an_image_must_not_hold(kind: bytes, message: str) -> None:
    refused(f"{message}, which an image must not hold", header(kind=kind))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (b"a\0b", "has an empty name or one with a zero byte"),
        (b"a/" * 2048, "has a name longer than 4095 bytes"),
        (b"a/..", "has a name with '..'"),
        (b"n" * 256, "has a part of its name longer than 255 bytes"),
        (b"a/" * 128 + b"f", "is more than 128 folders deep"),
        (b".wh.a/b", "is inside a whiteout"),
        (b".", "is a file in the place of the root"),
    ],
)
def test_names_that_are_refused(name: bytes, message: str) -> None:
    with pytest.raises(ArchiveError) as caught:
        vet(header(name), "layer", Policy())
    assert caught.value.message.endswith(f" {message}")


def test_names_that_are_just_good_enough() -> None:
    assert vet(header(b"n" * 255), "layer", Policy()).parts == ("n" * 255,)
    assert len(vet(header(b"a/" * 127 + b"f"), "layer", Policy()).parts) == 128
    longest = b"/".join([b"n" * 63] * 64)[:4095]
    assert len(vet(header(longest), "layer", Policy()).parts) == 64
    assert vet(header(b".", b"5"), "layer", Policy()).name == "."
    assert vet(header(b"./a/./b"), "layer", Policy()).name == "a/b"


def test_a_name_is_shown_in_200_bytes() -> None:
    assert refusal("w", b"n" * 300, "is odd").message == f"w: member {'n' * 200!r} is odd"
    assert refusal("w", b"\xff", "is odd").message == r"w: member '\\xff' is odd"
    assert refusal("w", b"", "is odd").message == "w: is odd"


def test_only_files_have_content() -> None:
    assert vet(header(size=7), "layer", Policy()).size == 7
    assert vet(header(kind=b"5", size=7), "layer", Policy()).size == 0
    assert vet(header(kind=b"1", size=1, link=b"x"), "layer", Policy()).size == 0
    refused("has a size that is out of range", header(size=-1))


def test_owners_have_32_bits_but_for_the_last() -> None:
    most = (1 << 32) - 2
    assert vet(header(uid=most, gid=most), "layer", Policy()).uid == most
    refused("has an owner that is out of range", header(uid=most + 1))
    refused("has an owner that is out of range", header(gid=most + 1))
    refused("has an owner that is out of range", header(uid=-1))


def test_times_before_1970_are_1970() -> None:
    assert vet(header(mtime=-5), "layer", Policy()).mtime == 0
    assert vet(header(mtime=0), "layer", Policy()).mtime == 0


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6755])
def test_set_user_id_follows_the_policy(mode: int) -> None:
    one = header(mode=0o100000 | mode)
    stripped = vet(one, "layer", Policy())
    assert (stripped.mode, stripped.stripped) == (0o755, True)
    kept = vet(one, "layer", Policy("keep"))
    assert (kept.mode, kept.stripped) == (mode, False)
    refused("is set-user-id or set-group-id", one, Policy("refuse"))
    of_folder = vet(header(kind=b"5", mode=mode), "layer", Policy("refuse"))
    assert (of_folder.mode, of_folder.stripped) == (mode, False)


def test_a_plain_mode_is_nobodys_business() -> None:
    for policy in ("keep", "strip", "refuse"):
        found = vet(header(mode=0o1755), "layer", Policy(policy))
        assert (found.mode, found.stripped) == (0o1755, False)


def test_whiteouts() -> None:
    gone = vet(header(b"d/.wh.x"), "layer", Policy())
    assert (gone.kind, gone.parts) == (Kind.WHITEOUT, ("d", "x"))
    opaque = vet(header(b"d/.wh..wh..opq"), "layer", Policy())
    assert (opaque.kind, opaque.parts) == (Kind.OPAQUE, ("d",))
    refused("is named like a whiteout, but is not an empty file", header(b".wh.x", size=1))
    refused("is named like a whiteout, but is not an empty file", header(b".wh.x", kind=b"5"))
    for name, hidden in (
        (b".wh.", ""),
        (b".wh..", "."),
        (b".wh...", ".."),
    ):
        refused(f"is a whiteout of {hidden!r}", header(name))
    for name in (b".wh..wh.x", b"d/.wh..wh.plnk/1", b".wh..wh..opq/x", b".wh..wh.a/.wh..wh..opq"):
        assert vet(header(name), "layer", Policy()).kind is Kind.NOTHING


def test_attributes() -> None:
    kept = {"security.capability": CAPABILITY, "user.note": b"x", "user." + "n" * 250: b""}
    dropped = {"security.selinux": b"l", "system.posix_acl_access": b"a", "com.apple.x": b"m"}
    assert vet(header(xattrs={**kept, **dropped}), "layer", Policy()).xattrs == kept
    for key in (
        "trusted.overlay.opaque", "user.overlay.x", "user.fuseoverlayfs.x", "user.containers.x",
        "security.ima", "system.posix_acl",
    ):  # fmt: skip
        refused(f"has the extended attribute {key!r}", header(xattrs={key: b""}))
    large = "has an extended attribute 'user.x' that is too large"
    assert vet(header(xattrs={"user.x": bytes(64 << 10)}), "layer", Policy()).xattrs
    refused(large, header(xattrs={"user.x": bytes((64 << 10) + 1)}))
    long = "user." + "n" * 251
    refused(
        f"has an extended attribute {long[:80]!r} that is too large", header(xattrs={long: b""})
    )


def test_names_keep_their_bytes() -> None:
    for raw in (b"plain", "ü".encode(), b"\xff\xfe"):
        assert encode(decode(raw)) == raw


def test_what_an_image_may_expand_to() -> None:
    assert Limits() == Limits(expanded=16 << 30, members=1_000_000)
    assert Policy().setuid == "strip"
