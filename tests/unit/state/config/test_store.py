"""The configuration store, read back with git itself."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from machineos.core.run import run
from machineos.core.secret import Secret
from machineos.errors import ConflictError
from machineos.state.config.store import BRANCH, GIT_FOLDER, create_store, write_beside
from waiting import PATIENCE

FILES = {
    "manifest.yaml": b'{"version":1}\n',
    f"{'ab' * 32}.json": b"\x00\xff binary",
    f"{'ab' * 32}.pem": b"-----BEGIN",
    "zz": b"",
}


def git(folder: Path, *words: str, index: Path | None = None) -> str:
    # Our own folder may belong to another user than git expects: say that it is ours.
    argv = ["git", "-c", "safe.directory=*", f"--git-dir={folder / GIT_FOLDER}", *words]
    return run(argv, timeout=PATIENCE, env={"GIT_INDEX_FILE": str(index)} if index else None).text


@pytest.mark.tool("git")
def test_git_reads_what_was_written(tmp_path: Path) -> None:
    commit = create_store(tmp_path, FILES, message="Initial commit", seconds=1_700_000_000)
    assert git(tmp_path, "rev-parse", "HEAD") == commit
    assert git(tmp_path, "symbolic-ref", "HEAD") == BRANCH
    assert git(tmp_path, "log", "--format=%s|%an|%at|%P") == "Initial commit|machine|1700000000|"
    names = git(tmp_path, "ls-tree", "-r", "--name-only", "HEAD").splitlines()
    assert names == sorted(FILES)
    for name, data in FILES.items():
        argv = ["git", "-c", "safe.directory=*", f"--git-dir={tmp_path / GIT_FOLDER}",
                "cat-file", "blob", f"HEAD:{name}"]  # fmt: skip
        assert run(argv, timeout=PATIENCE).stdout == data
        assert (tmp_path / name).read_bytes() == data
    assert "missing" not in git(tmp_path, "fsck", "--strict", "--full")


@pytest.mark.tool("git")
def test_the_work_tree_is_clean(tmp_path: Path) -> None:
    create_store(tmp_path, FILES, message="x", seconds=0)
    index = tmp_path / GIT_FOLDER / "index-of-test"
    git(tmp_path, "read-tree", "HEAD", index=index)
    status = (f"--work-tree={tmp_path}", "status", "--porcelain", "--untracked-files=no")
    assert git(tmp_path, *status, index=index) == ""
    (tmp_path / "zz").write_text("changed")
    assert git(tmp_path, *status, index=index) == " M zz"


def test_everything_is_synced_before_it_is_reported(tmp_path: Path) -> None:
    synced: list[str] = []

    def note(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append(str(path.relative_to(tmp_path)))

    create_store(tmp_path, FILES, message="x", seconds=0, sync=note)
    everything = {str(path.relative_to(tmp_path)) for path in (tmp_path / GIT_FOLDER).rglob("*")}
    assert {f"{GIT_FOLDER}/HEAD", f"{GIT_FOLDER}/config"} < everything
    assert sorted(synced) == sorted({*everything, GIT_FOLDER, "."})
    assert synced[-2:] == [GIT_FOLDER, "."]


def test_files_are_for_root_and_its_group(tmp_path: Path) -> None:
    create_store(tmp_path, FILES, message="x", seconds=0)
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in FILES} == {0o640}


def test_the_same_content_gives_the_same_commit(tmp_path: Path) -> None:
    commits = set()
    for name in "ab":
        (tmp_path / name).mkdir()
        files = dict(sorted(FILES.items(), reverse=name == "b"))
        commits.add(create_store(tmp_path / name, files, message="x", seconds=7))
    assert len(commits) == 1


def test_a_store_is_never_replaced(tmp_path: Path) -> None:
    create_store(tmp_path, {"a": b"1"}, message="x", seconds=0)
    with pytest.raises(ConflictError, match="holds a configuration store already"):
        create_store(tmp_path, {"a": b"2"}, message="x", seconds=0)
    assert (tmp_path / "a").read_bytes() == b"1"


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ""])
def test_names_stay_inside(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "config"
    folder.mkdir()
    with pytest.raises(ValueError):
        create_store(folder, {name: b"x"}, message="x", seconds=0)
    assert [path.name for path in tmp_path.iterdir()] == ["config"]


@pytest.mark.tool("strace")
def test_objects_and_refs_are_synced(tmp_path: Path) -> None:
    """Seen from the kernel: every object, the ref, the files and both folders."""
    code = (
        "import sys; from pathlib import Path; "
        "from machineos.state.config.store import create_store; "
        "create_store(Path(sys.argv[1]), {'a': b'1'}, message='x', seconds=0)"
    )
    log = tmp_path / "log"
    folder = tmp_path / "config"
    folder.mkdir()
    run(["strace", "-f", "-y", "-e", "trace=fsync,fdatasync", "-o", log, sys.executable, "-c",
         code, folder], timeout=PATIENCE)  # fmt: skip
    text = log.read_text()
    for part in ("objects/", "refs/heads/master", "/config>", "/manifest.git>", "/config/.a."):
        assert part in text, part


def test_what_is_beside_the_store_is_in_no_commit(tmp_path: Path) -> None:
    synced: list[Path] = []

    def note(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())

    write_beside(tmp_path, "host-ca.key", Secret(b"private"), mode=0o600, sync=note)
    create_store(tmp_path, FILES, message="x", seconds=0)
    path = tmp_path / "host-ca.key"
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"private", 0o600)
    assert len(synced) == 2  # the file, then the folder that names it
    assert synced[1] == tmp_path
    with pytest.raises(ValueError, match="is not a file name"):
        write_beside(tmp_path, "../x", Secret(b""), mode=0o600)
