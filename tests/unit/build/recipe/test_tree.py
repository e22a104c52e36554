"""Layers that become one tree: in memory, so without root and without a disk."""

from __future__ import annotations

from typing import Any

import pytest

from machineos.build.recipe.archive import Stream, read_members
from machineos.build.recipe.member import Limits, Policy
from machineos.build.recipe.tarheader import Facts
from machineos.build.recipe.tree import Entry, Inode, Tree
from machineos.document.model.image import Sight
from machineos.errors import ArchiveError
from unit.build.tarmaker import END, folder, hardlink, member, symlink


class Spool:
    """Where contents go."""

    def __init__(self, most: int = 1000) -> None:
        self.data = bytearray()
        self.tree = Tree(self.data.extend, most=most)

    def add(self, layer: bytes, what: str) -> None:
        stream = Stream((layer + END,), limit=1 << 30, what=what)
        members = read_members(stream, what=what, limits=Limits(), policy=Policy())
        self.tree.add_layer(members, what=what)

    def text(self, entry: Entry) -> str:
        start = entry.inode.start
        return self.data[start : start + entry.inode.size].decode()


def tree_of(*layers: bytes) -> Spool:
    spool = Spool()
    for index, layer in enumerate(layers):
        spool.add(layer, f"layer {index}")
    return spool


def shape(spool: Spool) -> dict[str, str]:
    """What is in a tree: name to content, ``-> target`` or ``/``."""
    found: dict[str, str] = {}

    def walk(above: str, entry: Entry) -> None:
        for name, child in sorted((entry.children or {}).items()):
            if child.children is not None:
                found[above + name] = "/"
                walk(f"{above}{name}/", child)
            elif child.inode.target:
                found[above + name] = f"-> {child.inode.target}"
            else:
                found[above + name] = spool.text(child)

    walk("", spool.tree.top)
    return found


def refused(message: str, *layers: bytes) -> None:
    with pytest.raises(ArchiveError, match=message):
        tree_of(*layers)


def test_names_stand_for_inodes_and_hard_links_share_one() -> None:
    spool = tree_of(
        folder("d/", 0o1777)
        + member("d/f", b"one", mode=0o604, uid=1234, gid=5678, mtime=99)
        + hardlink("other", "d/f")
        + symlink("s", "../../etc/passwd")
    )
    assert shape(spool) == {"d": "/", "d/f": "one", "other": "one", "s": "-> ../../etc/passwd"}
    children = spool.tree.top.children or {}
    inode = children["other"].inode
    assert inode is (children["d"].children or {})["f"].inode
    assert (inode.links, inode.facts) == (2, Facts(0o604, 1234, 5678, 99, {}))
    assert spool.tree.members == 4


def test_a_folder_that_no_layer_lists_is_roots_and_from_1970() -> None:
    spool = tree_of(member("a/b", b"1"))
    implied = (spool.tree.top.children or {})["a"].inode
    assert implied.facts == Facts(0o755, 0, 0, 0, {})
    assert spool.tree.root == Facts(0o755, 0, 0, 0, {})


def test_an_implied_folder_takes_what_a_later_member_says_of_it() -> None:
    spool = tree_of(member("a/b", b"1") + folder("a/", 0o700))
    assert (spool.tree.top.children or {})["a"].inode.mode == 0o700


def test_a_later_layer_wins() -> None:
    tree = tree_of(
        folder("d/") + member("d/a", b"1") + member("d/b", b"1") + member("f", b"1"),
        member("d/a", b"2") + folder("f/") + member("f/x", b"2"),
    )
    assert shape(tree) == {"d": "/", "d/a": "2", "d/b": "1", "f": "/", "f/x": "2"}


def test_a_file_replaces_a_folder_and_all_in_it() -> None:
    tree = tree_of(folder("d/") + member("d/a", b"1"), member("d", b"2"))
    assert shape(tree) == {"d": "2"}


@pytest.mark.parametrize("first", [True, False])
def test_whiteouts_hide_lower_layers_only_wherever_they_stand(first: bool) -> None:
    mark = member("d/.wh.x")
    fresh = folder("d/x/") + member("d/x/new", b"2")
    tree = tree_of(
        folder("d/") + folder("d/x/") + member("d/x/old", b"1") + member("d/y", b"1"),
        mark + fresh if first else fresh + mark,
    )
    assert shape(tree) == {"d": "/", "d/x": "/", "d/x/new": "2", "d/y": "1"}


@pytest.mark.parametrize("first", [True, False])
def test_opaque_whiteouts_hide_lower_layers_only(first: bool) -> None:
    mark = member("d/.wh..wh..opq")
    fresh = member("d/new", b"2") + folder("d/s/") + member("d/s/new", b"2")
    tree = tree_of(
        folder("d/") + member("d/old", b"1") + folder("d/s/") + member("d/s/old", b"1"),
        mark + fresh if first else fresh + mark,
    )
    assert shape(tree) == {"d": "/", "d/new": "2", "d/s": "/", "d/s/new": "2"}


def test_a_whiteout_of_what_is_not_there_does_nothing() -> None:
    assert shape(tree_of(member("a", b"1"), member(".wh.b") + member("c/.wh.d"))) == {"a": "1"}


def test_a_whiteout_takes_one_name_of_a_hard_link() -> None:
    tree = tree_of(member("a", b"1") + hardlink("b", "a"), member(".wh.a"))
    assert shape(tree) == {"b": "1"}


def test_hard_links_may_name_a_lower_layer() -> None:
    tree = tree_of(member("a", b"1"), hardlink("b", "a") + member("c", b"2"))
    assert shape(tree) == {"a": "1", "b": "1", "c": "2"}


@pytest.mark.parametrize(
    ("links", "name", "there"),
    [
        ({"d": "/etc"}, "d/passwd", "etc/passwd"),
        ({"d": "../../etc"}, "d/passwd", "etc/passwd"),
        ({"d": "e/f", "e": "g"}, "d/x", "g/f/x"),
        ({"usr/bin": "../opt/./bin"}, "usr/bin/x", "opt/bin/x"),
        ({"a": "..", "b": "a/.."}, "b/c", "c"),
        ({"a": "/"}, "a/a/a/x", "x"),
    ],
)
@pytest.mark.parametrize("lower", [False, True])
def test_links_above_a_member_are_followed_inside_the_tree(
    links: dict[str, str], name: str, there: str, lower: bool
) -> None:
    made = b"".join(symlink(*link) for link in links.items())
    written = member(name, b"1")
    tree = tree_of(made, written) if lower else tree_of(made + written)
    found = shape(tree)
    assert found.pop(there) == "1"
    assert not [path for path, kind in found.items() if kind == "1"]


def test_a_whiteout_and_a_hard_link_follow_them_too() -> None:
    lower = folder("usr/bin/") + symlink("bin", "usr/bin") + member("usr/bin/a", b"1")
    assert "usr/bin/a" not in shape(tree_of(lower, member("bin/.wh.a")))
    assert shape(tree_of(lower, hardlink("b", "bin/a")))["b"] == "1"
    assert "usr/bin/a" not in shape(tree_of(lower, member("bin/.wh..wh..opq")))


def test_refuses_what_leads_nowhere() -> None:
    refused("has 'd' as its folder, a file", member("d", b""), member("d/x", b""))
    refused("leads through too many symbolic links", symlink("a", "a") + member("a/x"))
    deep = symlink("a", "e/" * 49) + symlink("b", "a/" + "f/" * 48) + member("b/" + "d/" * 48 + "x")
    refused("leads more than 128 folders deep", deep)
    refused("too many symbolic links", symlink("a", "b") + symlink("b", "/a") + member("a/x"))


@pytest.mark.parametrize("target", ["missing", "d"])
def test_refuses_hard_links_to_what_is_no_file(target: str) -> None:
    layer = symlink("s", "/etc/passwd") + folder("d/") + hardlink("l", target)
    refused("member 'l' is a hard link to", layer)


def test_a_hard_link_to_a_symbolic_link_is_another_one() -> None:
    found = shape(tree_of(symlink("s", "x") + hardlink("l", "s")))
    assert found["l"] == found["s"]


def test_of_members_that_come_twice_the_last_one_counts() -> None:
    """As for tar, Docker and umoci."""
    for layer, wanted in (
        (member("a", b"1") + member("./a", b"2"), {"a": "2"}),
        (member("a", b"1") + folder("a/"), {"a": "/"}),
        (folder("a/") + member("a/b", b"") + member("a", b"1"), {"a": "1"}),
        (member("a", b"1") + hardlink("a", "a"), {"a": "1"}),
        (member("a", b"1") + hardlink("b", "a") + member("a", b"2"), {"a": "2", "b": "1"}),
        (folder("a/") + member("a/b", b"1") + folder("a/", 0o700), {"a": "/", "a/b": "1"}),
    ):
        assert shape(tree_of(layer)) == wanted
    tree = tree_of(symlink("a", "b") + symlink("a", "c")).tree
    assert tree.top.children is not None
    assert tree.top.children["a"].inode.target == "c"


def test_takes_a_folder_that_comes_twice_and_says_the_same() -> None:
    assert shape(tree_of(folder("a/") + member("a/b", b"1") + folder("a/"))) == {
        "a": "/",
        "a/b": "1",
    }


def test_an_opaque_whiteout_of_no_folder_does_nothing() -> None:
    spool = tree_of(member("a", b"1"), member("a/.wh..wh..opq") + member("b/.wh..wh..opq"))
    assert shape(spool) == {"a": "1"}


def test_the_root_gets_the_newest_time_and_at_least_the_epoch() -> None:
    spool = tree_of(member("a/b", b"", mtime=50) + member("c", b"", mtime=70))
    assert spool.tree.make_root_newest(60) == 70
    assert spool.tree.root.mtime == 70
    assert spool.tree.make_root_newest(80) == 80


def test_folders_that_are_needed_are_made_unless_something_is_in_the_way() -> None:
    spool = tree_of(symlink("link", "/etc") + folder("tmp/", 0o700) + member("f", b"1"))
    ensure = spool.tree.ensure_folder
    ensure(("var", "tmp"), mode=0o1777, mtime=9)
    ensure(("tmp",), mode=0o1777, mtime=9)
    ensure(("link", "x"), mode=None, mtime=9)
    ensure(("f",), mode=0o1777, mtime=9)
    ensure((), mode=None, mtime=9)
    children = spool.tree.top.children or {}
    assert children["var"].inode.facts == Facts(0o755, 0, 0, 9, {})
    assert (children["var"].children or {})["tmp"].inode.facts == Facts(0o1777, 0, 0, 9, {})
    assert children["tmp"].inode.mode == 0o1777
    assert children["f"].inode.mode == 0o644
    assert shape(spool)["link"] == "-> /etc"


def test_what_lost_a_bit_is_told() -> None:
    spool = tree_of(member("bin/su", b"x", mode=0o4755), member("bin/ok", b"x", mode=0o755))
    assert spool.tree.stripped == ["bin/su"]


INSIDE = folder("etc/below/") + member("etc/f", b"four") + symlink("away", "etc") + member("top")


@pytest.mark.parametrize(
    ("path", "sight"),
    [
        ("/", Sight()),
        ("/etc", Sight()),
        ("/etc/below/", Sight()),
        ("/no/below", Sight("/no does not exist", absent=True)),
        ("/etc/no", Sight("/etc/no does not exist", absent=True)),
        ("/away", Sight("/away is a symbolic link")),
        ("/away/below", Sight("/away is a symbolic link")),
        ("/etc/f/x", Sight("/etc/f is not a folder")),
    ],
)
def test_folders_are_seen_without_following_a_link(path: str, sight: Sight) -> None:
    assert tree_of(INSIDE).tree.see_folder(path) == sight


@pytest.mark.parametrize(
    ("path", "sight"),
    [
        ("/etc/no", Sight("/etc/no does not exist", absent=True)),
        ("/no/f", Sight("/no does not exist", absent=True)),
        ("/away", Sight("/away is a symbolic link")),
        ("/away/f", Sight("/away/f is not read: /away is a symbolic link")),
        ("/top/f", Sight("/top/f is not read: /top is not a folder")),
        ("/etc/below", Sight("/etc/below is not a regular file")),
    ],
)
def test_what_is_seen_where_no_file_is(path: str, sight: Sight) -> None:
    assert tree_of(INSIDE).tree.find_file(path, limit=4) == sight


def test_a_file_is_found_if_it_is_small_enough() -> None:
    spool = tree_of(INSIDE)
    found = spool.tree.find_file("/etc/f", limit=4)
    assert isinstance(found, Inode)
    assert spool.data[found.start : found.start + found.size] == b"four"
    assert spool.tree.find_file("/etc/f", limit=3) == Sight("/etc/f is larger than 3 bytes")
    assert isinstance(spool.tree.find_file("/top", limit=4), Inode)


def test_folders_that_no_layer_lists_count_as_members() -> None:
    """A name of 2 KiB makes a thousand of them."""
    spool = Spool(most=10)
    with pytest.raises(ArchiveError, match="is one too many: the image has more than 10 members"):
        spool.add(member("a/b/c/d/e/f/g/h/i/j/k", b""), "layer")
    spool = Spool(most=11)
    spool.add(member("a/b/c/d/e/f/g/h/i/j/k", b""), "layer")
    assert spool.tree.members == 11


class Counting(dict[str, Entry]):
    """The children of a folder, and how often somebody went through all of them."""

    walks = 0

    def items(self) -> Any:  # noqa: ANN401 (what a dict gives)
        """Go through all."""
        Counting.walks += 1
        return super().items()


@pytest.mark.parametrize("mark", ["d/.wh..wh..opq", ".wh.d"])
def test_many_whiteouts_of_one_folder_cost_what_one_costs(mark: str) -> None:
    spool = Spool(most=10_000)
    spool.add(folder("d/") + b"".join(member(f"d/{n}", b"") for n in range(100)), "lower")
    top = spool.tree.top.children or {}
    top["d"].children = Counting(top["d"].children or {})
    Counting.walks = 0
    spool.add(member("d/new", b"") + member(mark, b"") * 500, "upper")
    assert list(top["d"].children or {}) == ["new"]
    assert Counting.walks == 1
