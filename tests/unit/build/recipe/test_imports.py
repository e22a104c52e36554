from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from machineos.build.recipe.imports import (
    Content,
    content_at,
    copy,
    gather,
    place,
    show,
    take,
    unchanged,
)
from machineos.build.recipe.placement import resolve_in
from machineos.build.recipe.stage import Import
from machineos.errors import DigestError, MissingError, PolicyError, VerificationError
from machineos.host.pack.container import Ids

AS_IT_IS = Ids(0, 0, 65536, 0)
SHA = hashlib.sha256(b"hello").hexdigest()
HELLO = Content("file", 0o644, SHA)


def find(item: Import, base: Path) -> tuple[Path, Content]:
    return gather(item, base=base, download=fetched, stage_tree=lambda name: base / name)


def fetched(url: str, sha256: str) -> tuple[Path, str]:
    return Path(url), sha256


def test_files_and_folders_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"hello")
    assert find(Import("f"), tmp_path) == (tmp_path / "f", HELLO)
    assert find(Import("f", sha256=SHA), tmp_path)[1] == HELLO
    with pytest.raises(DigestError, match=f"import f: sha256 is {SHA}, the recipe says 1111"):
        find(Import("f", sha256="1" * 64), tmp_path)
    with pytest.raises(MissingError, match="import g does not exist"):
        find(Import("g"), tmp_path)


def test_files_of_other_stages_never_lead_out_of_them(tmp_path: Path) -> None:
    (tmp_path / "stage/usr").mkdir(parents=True)
    (tmp_path / "stage/usr/f").write_bytes(b"hello")
    (tmp_path / "stage/bin").symlink_to("/usr")
    (tmp_path / "stage/out").symlink_to("../../../../etc")
    assert find(Import("stacker://stage/bin/f"), tmp_path) == (tmp_path / "stage/usr/f", HELLO)
    with pytest.raises(MissingError):
        find(Import("stacker://stage/out/passwd"), tmp_path)


def test_the_digest_of_a_folder_is_over_names_modes_and_contents(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    (folder / "s").mkdir(parents=True)
    (folder / "s/f").write_text("x")
    seen = {content_at(folder).digest}
    (folder / "s/f").write_text("y")
    seen.add(content_at(folder).digest)
    (folder / "s/f").chmod(0o700)
    seen.add(content_at(folder).digest)
    (folder / "s/f").rename(folder / "s/g")
    seen.add(content_at(folder).digest)
    (folder / "l").symlink_to("s")
    seen.add(content_at(folder).digest)
    assert len(seen) == 5
    assert content_at(folder).digest in seen
    os.mkfifo(folder / "fifo")
    with pytest.raises(VerificationError, match="neither a file nor a folder"):
        content_at(folder)


def test_what_is_of_another_mode_or_kind_is_something_else(tmp_path: Path) -> None:
    """Or the cache gives what was imported before, and a pin holds for what it was not made for."""
    link, folder, file = tmp_path / "l", tmp_path / "d", tmp_path / "f"
    link.symlink_to("/etc/passwd")
    folder.mkdir()
    (folder / "a").write_text("q")
    for text in ("link\0/etc/passwd", f"644 {hashlib.sha256(b'q').hexdigest()} a\0"):
        file.write_text(text)
        assert content_at(file).digest == hashlib.sha256(text.encode()).hexdigest()
        assert content_at(file).digest not in {content_at(link).digest, content_at(folder).digest}
    first = content_at(folder)
    (folder / "a").unlink()
    (folder / "a").symlink_to("q")
    second = content_at(folder)
    (folder / "a").unlink()
    (folder / "a").write_text("link\0q")
    (folder / "a").chmod(0o777)  # which links have
    assert len({first.digest, second.digest, content_at(folder).digest}) == 3
    before = content_at(file)
    file.chmod(0o755)
    assert (content_at(file).digest, str(content_at(file))) == (
        before.digest,
        str(before).replace("644", "755", 1),
    )


def test_files_of_the_web_are_somebody_elses_work(tmp_path: Path) -> None:
    (tmp_path / "fetched").write_bytes(b"hello")

    def fetched(_url: str, sha256: str) -> tuple[Path, str]:
        return tmp_path / "fetched", sha256

    item = Import("https://host/f", sha256=SHA)
    found = gather(item, base=tmp_path, download=fetched, stage_tree=lambda _name: tmp_path)
    assert found == (tmp_path / "fetched", HELLO)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a/b", "a/b"),
        ("/abs/f", "real/f"),
        ("/rel/f", "real/f"),
        ("/up/f", "f"),
        ("/../../f", "f"),
        ("/deep/x", "real/x"),
        ("/missing/x", "missing/x"),
    ],
)
def test_paths_resolve_inside_the_tree(tmp_path: Path, path: str, expected: str) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "abs").symlink_to("/real")
    (tmp_path / "rel").symlink_to("./real")
    (tmp_path / "up").symlink_to("../../..")
    (tmp_path / "deep").symlink_to("abs")
    assert resolve_in(tmp_path, path) == tmp_path / expected


def test_a_circle_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(VerificationError, match="too many symbolic links"):
        resolve_in(tmp_path, "/a/x")


@pytest.mark.root
def test_place_follows_links_of_the_image_only_inside_it(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "bin").symlink_to("usr/bin")
    (tree / "out").symlink_to("/etc")
    (tmp_path / "f").write_text("x")
    item = Import("f", dest="/bin/", mode=0o751, uid=3, gid=4)
    place(tmp_path / "f", item, tree, epoch=77, ids=AS_IT_IS)
    status = (tree / "usr/bin/f").stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o751, 3, 4)
    assert status.st_mtime == 77
    place(tmp_path / "f", Import("f", dest="/out/made/g"), tree, epoch=77, ids=AS_IT_IS)
    assert (tree / "etc/made/g").read_text() == "x"
    assert not Path("/etc/made").exists()
    with pytest.raises(VerificationError, match="/usr/bin/f: f is no folder"):
        place(tmp_path / "f", Import("f", dest="/usr/bin/f/g"), tree, epoch=77, ids=AS_IT_IS)


@pytest.mark.root
def test_copies_are_owned_by_root_and_have_the_epoch(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_text("x")
    os.chown(tmp_path / "d/f", 1000, 1000)
    (tmp_path / "d/l").symlink_to("f")
    copy(tmp_path / "d", tmp_path / "e", epoch=5, ids=AS_IT_IS)
    assert (tmp_path / "e/f").stat().st_uid == 0
    assert (tmp_path / "e/l").readlink() == Path("f")
    assert {path.lstat().st_mtime for path in (tmp_path / "e").rglob("*")} == {5.0}


@pytest.mark.root
def test_a_script_sees_an_import_under_the_old_name_too(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    (tmp_path / "d/s").mkdir(parents=True)
    (tmp_path / "d/s/g").write_text("y")
    (tmp_path / "d/l").symlink_to("s")
    seen = tmp_path / "seen"
    (seen / "imports").mkdir(parents=True)
    for name in ("f", "d"):
        show(tmp_path / name, name, seen, epoch=5, ids=AS_IT_IS)
    for place_ in (seen, seen / "imports"):
        assert (place_ / "f").read_text() == "x"
        assert (place_ / "d/s/g").read_text() == "y"
        assert (place_ / "d/l").readlink() == Path("s")
    assert (seen / "f").stat().st_ino == (seen / "imports/f").stat().st_ino
    assert not (seen / "d").is_symlink()


@pytest.mark.root
@pytest.mark.parametrize("name", ["imports", "run"])
def test_a_name_of_ours_stays_ours(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x")
    seen = tmp_path / "seen"
    (seen / "imports").mkdir(parents=True)
    show(tmp_path / name, name, seen, epoch=5, ids=AS_IT_IS)
    assert (seen / "imports" / name).read_text() == "x"
    assert not (seen / name).is_file()


@pytest.mark.root
def test_the_contents_of_a_folder_are_put_in_place_beside_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "d/s").mkdir(parents=True)
    (tmp_path / "d/s/g").write_text("y")
    (tmp_path / "d/f").write_text("x")
    (tmp_path / "d/l").symlink_to("/etc/passwd")
    tree = tmp_path / "tree"
    tree.mkdir(mode=0o700)
    (tree / "old").write_text("old")
    os.chown(tree / "old", 7, 7)
    for dest in ("/", "/a", "/b/"):
        place(tmp_path / "d", Import("d/", dest=dest), tree, epoch=5, ids=AS_IT_IS)
    for name in ("", "a/", "b/"):
        assert (tree / f"{name}f").read_text() == "x"
        assert (tree / f"{name}s/g").read_text() == "y"
        assert (tree / f"{name}l").readlink() == Path("/etc/passwd")
    assert (tree.stat().st_mode & 0o777, (tree / "old").stat().st_uid) == (0o700, 7)


@pytest.mark.root
@pytest.mark.parametrize("link", ["{outside}", "/../../{outside}"])
def test_place_never_writes_through_a_link_in_what_is_there(tmp_path: Path, link: str) -> None:
    """An image may have a link where a folder, or a file in a folder, of ours is put."""
    outside, tree, ours = tmp_path / "outside", tmp_path / "tree", tmp_path / "ours"
    for made in (outside, tree / "opt/app", ours / "conf.d"):
        made.mkdir(parents=True)
    (outside / "job").write_text("the host's")
    (ours / "conf.d/job").write_text("an attacker's")
    (ours / "note").write_text("an attacker's")
    (tree / "opt/app/conf.d").symlink_to(link.format(outside=outside))
    (tree / "opt/app/note").symlink_to(link.format(outside=outside / "job"))
    (tree / "opt/folder").mkdir()
    (tree / "opt/folder/note").symlink_to(link.format(outside=outside / "job"))
    place(ours, Import("ours", dest="/opt/app"), tree, epoch=77, ids=AS_IT_IS)
    place(ours / "note", Import("note", dest="/opt/folder"), tree, epoch=77, ids=AS_IT_IS)
    assert (outside / "job").read_text() == "the host's"
    assert [path.name for path in outside.iterdir()] == ["job"]
    assert (tree / "opt/folder/note").read_text() == "an attacker's"
    # Where the link leads when the tree is the root.
    assert (tree / str(outside).lstrip("/") / "job").read_text() == "an attacker's"
    assert not (tree / "opt/app/note").is_symlink()


@pytest.mark.root
def test_place_refuses_a_folder_where_a_file_should_be(tmp_path: Path) -> None:
    (tmp_path / "tree/etc/f").mkdir(parents=True)
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours/f").write_text("x")
    item = Import("ours", dest="/etc")
    with pytest.raises(VerificationError, match="/etc/f is a folder, and a file should be there"):
        place(tmp_path / "ours", item, tmp_path / "tree", epoch=77, ids=AS_IT_IS)


@pytest.mark.parametrize("path", ["{out}/secret", "../out/secret", "link", "folder/secret", "up/x"])
def test_what_is_not_in_the_recipes_folder_is_not_read(tmp_path: Path, path: str) -> None:
    """Its scripts could send it away: a private key, a password file."""
    base, out = tmp_path / "base", tmp_path / "out"
    for folder in (base, out):
        folder.mkdir()
    (out / "secret").write_bytes(b"hello")
    (out / "x").write_bytes(b"hello")
    (base / "link").symlink_to(out / "secret")
    (base / "folder").symlink_to("../out")
    (base / "up").symlink_to(out)
    name = path.format(out=out)
    with pytest.raises(PolicyError, match="leads out of the recipe's folder, to ") as caught:
        find(Import(name), base)
    assert caught.value.hint == f"if the recipe may read what is there: --allow-folder {out}"
    allowed = gather(
        Import(name), base=base, allowed=(out,), download=fetched, stage_tree=lambda name: base
    )
    assert allowed[1] == HELLO


def test_paths_that_stay_in_the_recipes_folder_are_read(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "f").write_bytes(b"hello")
    (tmp_path / "a/link").symlink_to("../f")
    for name in ("a/../f", "a/link", str(tmp_path / "f")):
        assert find(Import(name), tmp_path) == (tmp_path / "f", HELLO)
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(MissingError, match="import circle does not exist"):
        find(Import("circle"), tmp_path)


def test_links_in_a_folder_are_taken_as_links(tmp_path: Path) -> None:
    """So that nothing is read through them."""
    (tmp_path / "base/d").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"hello")
    (tmp_path / "base/d/l").symlink_to("../../secret")
    found, _ = find(Import("d"), tmp_path / "base")
    ids = Ids(os.getuid(), os.getgid(), 1, 0)
    copy(found, tmp_path / "copied", epoch=5, ids=ids)
    assert (tmp_path / "copied/l").readlink() == Path("../../secret")


@pytest.mark.parametrize("name", ["f", "d"])
def test_what_changed_since_it_was_gathered_is_not_taken(tmp_path: Path, name: str) -> None:
    (tmp_path / "d").mkdir()
    for path in (tmp_path / "f", tmp_path / "d/f"):
        path.write_bytes(b"hello")
    path, content = find(Import(name), tmp_path)
    ids = Ids(os.getuid(), os.getgid(), 1, 0)
    take(path, content, tmp_path / "same", epoch=5, ids=ids)
    assert content_at(tmp_path / "same") == content
    for changed in (tmp_path / "f", tmp_path / "d/f"):
        changed.write_bytes(b"other")
    with pytest.raises(DigestError, match=f"/{name} changed while the recipe was built"):
        take(path, content, tmp_path / "other", epoch=5, ids=ids)


def test_a_stream_ends_well_only_when_it_is_what_was_gathered(tmp_path: Path) -> None:
    assert b"".join(unchanged([b"he", b"llo"], SHA, tmp_path / "f")) == b"hello"
    with pytest.raises(DigestError, match="/f changed while the recipe was built"):
        list(unchanged([b"hell"], SHA, tmp_path / "f"))
