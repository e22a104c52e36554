"""What we write, read again by our own strict reader and packed by the real program."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.build.recipe.archive import Stream, read_members
from machineos.build.recipe.member import Kind, Limits, Member, Policy
from machineos.build.recipe.tarheader import MAX_TIME, Facts
from machineos.build.recipe.tarstream import TarWriter, copy
from machineos.core.run import perform
from machineos.errors import ToolError
from machineos.host.pack import squashfs
from unit.build.images import unpack

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PLAIN = Facts(0o644, 0, 0, 1000, {})
NEWEST = 1_700_000_000


def archive(write: Callable[[TarWriter], None], spool: bytes = b"") -> bytes:
    with tempfile.TemporaryFile() as contents, tempfile.TemporaryFile() as output:
        contents.write(spool)
        contents.flush()
        writer = TarWriter(output.fileno(), contents.fileno())
        write(writer)
        writer.finish()
        output.seek(0)
        return output.read()


def members(data: bytes) -> list[tuple[Member, bytes]]:
    stream = Stream([data], limit=len(data), what="t")
    found = read_members(stream, what="t", limits=Limits(), policy=Policy("keep"))
    return [(member, b"".join(body)) for member, body in found]


part = st.binary(min_size=1, max_size=255).filter(
    lambda name: not {0, 47} & set(name) and name not in {b".", b".."} and name[:4] != b".wh."
)
names = st.lists(part, min_size=1, max_size=12).map(lambda parts: os.fsdecode(b"/".join(parts)))
ids = st.integers(0, 2**32 - 2)
facts = st.builds(
    Facts,
    st.integers(0, 0o7777),
    ids,
    ids,
    st.integers(0, 2**40),
    st.dictionaries(
        st.sampled_from(["user.x", "user.long" + "x" * 90, "security.capability"]),
        st.binary(max_size=300),
    ),
)


@given(names, facts, st.binary(max_size=2000), st.integers(0, 700))
def test_a_file(name: str, about: Facts, content: bytes, start: int) -> None:
    spool = bytes(start) + content + b"after"
    data = archive(lambda writer: writer.file(name, about, start, len(content)), spool)
    assert len(data) % 512 == 0
    ((member, body),) = members(data)
    assert (member.kind, member.name, body) == (Kind.FILE, name, content)
    assert (member.mode, member.uid, member.gid) == (about.mode, about.uid, about.gid)
    assert member.mtime == min(about.mtime, MAX_TIME)
    assert member.xattrs == about.xattrs


@given(names, names, facts, st.binary(min_size=1, max_size=300).filter(lambda raw: 0 not in raw))
def test_what_has_no_content(name: str, first: str, about: Facts, raw: bytes) -> None:
    target = os.fsdecode(raw)

    def write(writer: TarWriter) -> None:
        writer.folder(f"f/{name}", about)
        writer.hardlink(f"h/{name}", about, first)
        writer.symlink(f"s/{name}", about, target)

    folder, hard, soft = (member for member, _ in members(archive(write)))
    assert (folder.kind, folder.name, folder.mode) == (Kind.FOLDER, f"f/{name}", about.mode)
    assert folder.xattrs == about.xattrs
    assert (hard.kind, "/".join(hard.link)) == (Kind.HARDLINK, first)
    assert (soft.kind, soft.target, soft.xattrs) == (Kind.SYMLINK, target, {})


def test_large_and_small_contents_keep_their_order() -> None:
    sizes = (1, 3 << 20, 0, 128 << 10, (128 << 10) + 1, 511, 512)
    spool = b"".join(bytes([65 + index]) * size for index, size in enumerate(sizes))

    def write(writer: TarWriter) -> None:
        for index, size in enumerate(sizes):
            writer.file(f"n{index}", PLAIN, sum(sizes[:index]), size)

    read = members(archive(write, spool))
    assert [member.name for member, _ in read] == [f"n{index}" for index in range(len(sizes))]
    assert b"".join(body for _, body in read) == spool


@pytest.mark.parametrize("size", [10, 1 << 20])
def test_a_spool_that_is_too_short_is_never_padded(size: int) -> None:
    with pytest.raises(EOFError, match="ends before"):
        archive(lambda writer: writer.file("x", PLAIN, 0, size), b"short")


def test_copying_takes_what_was_asked(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"0123456789")
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as target:
        copy(source.fileno(), 3, 4, target.fileno())
        copy(source.fileno(), 0, 0, target.fileno())
    assert (tmp_path / "out").read_bytes() == b"3456"


@pytest.mark.root
@pytest.mark.tool("mksquashfs")
def test_the_program_packs_what_was_written(tmp_path: Path) -> None:
    odd = os.fsdecode(b"\xff\xfe " + b"n" * 240)
    about = Facts(0o4751, 3_000_000, 7, 1234, {"user.x": b"\xff\0="})

    def write(writer: TarWriter) -> None:
        writer.folder("d", Facts(0o1700, 5, 6, 77, {"user.d": b""}))
        writer.file(f"d/{odd}", about, 0, 7)
        writer.hardlink("d/other", about, f"d/{odd}")
        writer.symlink("link", PLAIN, "d/" + "../" * 50 + "x")

    data = archive(write, b"content")
    image, tree = tmp_path / "image", tmp_path / "tree"

    def feed(output: int) -> None:
        os.write(output, data)

    perform(squashfs.make_from_tar_command(image, mode=0o1775, newest=NEWEST), feed=feed)
    unpack(image, tree)
    seen = {}
    for path in (tree, tree / "d", tree / "d" / odd):
        status = path.lstat()
        seen[path.name] = (
            status.st_mode & 0o7777, status.st_uid, status.st_gid, int(status.st_mtime)
        )  # fmt: skip
    assert seen == {
        "tree": (0o1775, 0, 0, NEWEST),
        "d": (0o1700, 5, 6, 77),
        odd: (0o4751, 3_000_000, 7, 1234),
    }
    assert (tree / "d" / odd).samefile(tree / "d/other")
    assert (tree / "d/other").read_bytes() == b"content"
    assert os.getxattr(tree / "d/other", "user.x") == b"\xff\0="
    assert os.getxattr(tree / "d", "user.d") == b""
    assert str((tree / "link").readlink()) == "d/" + "../" * 50 + "x"


@pytest.mark.tool("mksquashfs")
def test_a_stream_that_ends_early_is_an_error(tmp_path: Path) -> None:
    command = squashfs.make_from_tar_command(tmp_path / "image", mode=0o755, newest=NEWEST)

    def half(output: int) -> None:
        os.write(output, archive(lambda writer: writer.file("x", PLAIN, 0, 5), b"hello")[:700])

    with pytest.raises(ToolError, match="mksquashfs"):
        perform(command, feed=half)

    def broken(output: int) -> None:
        os.write(output, archive(lambda writer: writer.file("x", PLAIN, 0, 5), b"hello"))
        raise EOFError("no more")

    with pytest.raises(EOFError, match="no more"):
        perform(command, feed=broken)
