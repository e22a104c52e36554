"""Row 13 of the attacks: nothing that was on a disk before this boot gets into /etc and /var."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from machineos.core.run import Result, run

CODE = """
import sys
from pathlib import Path
from machineos.boot.handover import fresh_overlays
root, scratch = Path(sys.argv[1]), Path(sys.argv[2])
fresh_overlays(root, scratch)
(root / "etc/new").write_text("new")
(root / "var/old").write_text("changed")
print(sorted(p.name for p in (root / "etc").iterdir()), (root / "etc/old").read_text())
print(sorted(p.name for p in (root / "var").iterdir()), (root / "var/old").read_text())
"""


def overlays(tmp_path: Path, planted: str = "") -> Result:
    for name in ("etc", "var"):
        (tmp_path / "root" / name).mkdir(parents=True)
        (tmp_path / "root" / name / "old").write_text("old")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    # The initrd has its scratch on a tmpfs; what is planted there stands for a disk in its place.
    script = (
        f'mount -t tmpfs none "{scratch}" && for f in {planted}; do mkdir -p "{scratch}/$f"; '
        f'echo evil > "{scratch}/$f/shadow"; done; "$@"'
    )
    argv = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-c", CODE]
    return run([*argv, tmp_path / "root", scratch], timeout=30, check=False)


@pytest.mark.root
def test_changes_are_in_memory_only(tmp_path: Path) -> None:
    result = overlays(tmp_path)
    assert result.text.splitlines() == ["['new', 'old'] old", "['old'] changed"], result.stderr
    assert [path.name for path in (tmp_path / "root/etc").iterdir()] == ["old"]
    assert (tmp_path / "root/var/old").read_text() == "old"


@pytest.mark.root
@pytest.mark.parametrize("planted", ["etc/upper", "var/upper", "etc/work", "var/upper etc/upper"])
def test_an_upper_folder_that_is_there_is_refused(tmp_path: Path, planted: str) -> None:
    result = overlays(tmp_path, planted)
    assert result.status != 0
    assert result.text == ""
    assert b"File exists" in result.stderr
