"""What the system refuses is said in a line; a traceback is for defects."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from machineos.cli import app
from machineos.cli.shape import error_text
from machineos.core.run import run
from machineos.errors import MachineOSError

TRUST = "from machineos.cli.developer.trust import main; main()"


def test_a_path_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    argv = [sys.executable, "-c", TRUST, "keyset", "add", "k", "--org", "A"]
    env = {"XDG_DATA_HOME": str(tmp_path / "file")}
    result = run(argv, env=env, timeout=60, check=False)
    assert result.status == 1
    assert result.stderr == f"trust: {tmp_path}/file/machine/trust/keys: Not a directory\n".encode()
    result = run([*argv, "--json"], env=env, timeout=60, check=False)
    assert json.loads(result.stderr)["error"] == "MachineOSError"


def test_no_word_of_somebody_else_reaches_the_terminal_raw(
    capsys: pytest.CaptureFixture[str],
) -> None:
    app.say("said \x1b[31m")
    app.show("shown \x1b[31m\tof")
    app.show_table(("A\x1b", "B"), [("c\x9b", "\u202ed")])
    out, err = capsys.readouterr()
    assert err == "said \\x1b[31m\n"
    assert out == "shown \\x1b[31m\tof\nA\\x1b  B\nc\\x9b  \\u202ed\n"
    error = MachineOSError("bad \x1b[2J\rname\n  of a file", hint="hint \x07")
    assert error_text(error, "trust") == (
        "trust: bad \\x1b[2J\\rname\n  of a file\ntrust: hint \\x07"
    )


@pytest.mark.system
def test_a_full_disk(tmp_path: Path) -> None:
    """Whichever step it is that finds no room: no traceback, no half keyset."""
    disk = tmp_path / "disk"
    disk.mkdir()
    for inodes in (2, 5, 20, 45):
        script = (
            f'mount -t tmpfs -o nr_inodes={inodes} none "{disk}" && "$@"; status=$?; '
            f'find "{disk}" -type f | wc -l; exit $status'
        )
        argv = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-c", TRUST]
        env = {"XDG_DATA_HOME": str(disk)}
        result = run([*argv, "keyset", "add", "k", "--org", "A"], env=env, timeout=60, check=False)
        assert b"Traceback" not in result.stderr
        assert b"o space left on" in result.stderr
        assert result.status == 10
        assert result.text == "0"
