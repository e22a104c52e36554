"""What reaches the disk in which order, seen from the kernel: the order is the promise."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from machineos.core.run import run
from waiting import PATIENCE

pytestmark = pytest.mark.tool("strace")
CALLS = "trace=write,fsync,fdatasync,rename,renameat,renameat2,fchmod,unlink"


def calls(folder: Path, code: str) -> list[str]:
    """Run ``code`` with ``folder`` and return what it did to what is in there, one word and the
    names for each call; what is random in a name is left out."""
    log = folder.parent / "log"
    script = f"import sys\nfrom pathlib import Path\nfolder = Path(sys.argv[1])\n{code}"
    run(["strace", "-f", "-y", "-e", CALLS, "-o", log, sys.executable, "-c", script, folder],
        timeout=PATIENCE)  # fmt: skip
    found = []
    for line in log.read_text().splitlines():
        call = re.sub(r"\.[0-9a-f]{16}\b", ".RANDOM", line.split(None, 1)[1])
        names = [Path(name).relative_to(folder) for name in re.findall(r'[<"](/[^>"]*)[>"]', call)
                 if Path(name).is_relative_to(folder)]  # fmt: skip
        if names:
            found.append(" ".join([call.partition("(")[0], *map(str, names)]))
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "folder"
    path.mkdir()
    return path


def test_a_file_is_on_the_disk_before_its_name_and_its_name_before_the_end(folder: Path) -> None:
    code = "from machineos.core.files import write_atomic\nwrite_atomic(folder / 'file', b'x')"
    assert calls(folder, code) == [
        "fchmod .file.RANDOM", "write .file.RANDOM", "fsync .file.RANDOM",
        "rename .file.RANDOM file", "fsync .",
    ]  # fmt: skip


def test_a_cache_does_not_wait_for_the_disk(folder: Path) -> None:
    code = (
        "from machineos.core.files import atomic\n"
        "with atomic(folder / 'file', durable=False) as file: file.write(b'x')"
    )
    assert calls(folder, code) == [
        "fchmod .file.RANDOM", "write .file.RANDOM", "rename .file.RANDOM file",
    ]  # fmt: skip


def test_a_tree_is_synced_from_the_leaves_up(folder: Path) -> None:
    (folder / "a/b").mkdir(parents=True)
    for name in ("one", "a/two", "a/b/three"):
        (folder / name).write_text(name)
    code = "from machineos.core.files import fsync_tree\nfsync_tree(folder)"
    assert calls(folder, code) == [
        "fsync a/b/three", "fsync a/b", "fsync a/two", "fsync a", "fsync one", "fsync .",
    ]  # fmt: skip


def test_a_folder_appears_when_all_in_it_is_on_the_disk(folder: Path) -> None:
    code = (
        "from machineos.core.files import appearing\n"
        "with appearing(folder / 'made', what='it') as made: (made / 'sub').mkdir()"
    )
    assert calls(folder, code) == [
        "fsync .made.RANDOM", "fsync .made.RANDOM/sub", "rename .made.RANDOM made", "fsync .",
    ]  # fmt: skip


def test_a_boot_file_and_every_folder_above_it_are_synced(folder: Path) -> None:
    """FAT: new file in a new folder; the file, the folder, all folders above (reference of the
    trials: never a wrong byte in 105 states)."""
    (folder / "shim").write_bytes(b"shim")
    code = (
        "from machineos.state.slots.act import copy_file\n"
        "copy_file(folder / 'shim', folder / 'esp', 'EFI/machineos-a/shimx64.efi')"
    )
    assert calls(folder, code) == [
        "write esp/EFI/machineos-a/shimx64.efi", "fsync esp/EFI/machineos-a/shimx64.efi",
        "fsync esp/EFI/machineos-a", "fsync esp/EFI", "fsync esp",
    ]  # fmt: skip


def test_the_first_commit_is_synced_with_all_that_git_keeps_beside_it(folder: Path) -> None:
    """libgit2 syncs objects and refs when it is told to, HEAD and config never."""
    code = (
        "from machineos.state.config.store import create_store\n"
        "create_store(folder, {'a': b'1'}, message='x', seconds=0)"
    )
    found = calls(folder, code)
    for name in ("HEAD", "config", "refs/heads/master", "objects", "refs", "refs/heads"):
        assert f"fsync manifest.git/{name}" in found, name
    assert found[-2:] == ["fsync manifest.git", "fsync ."]
    at = found.index("fchmod .a.RANDOM")
    assert found[at : at + 5] == [
        "fchmod .a.RANDOM", "write .a.RANDOM", "fsync .a.RANDOM", "rename .a.RANDOM a", "fsync .",
    ]  # fmt: skip
