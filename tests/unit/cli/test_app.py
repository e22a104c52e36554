"""What the system refuses is said in a line; a traceback is for defects."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import pytest

from machineos.cli import app
from machineos.cli.shape import error_text
from machineos.core.run import run
from machineos.errors import MachineOSError
from waiting import PATIENCE

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


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (
            ["keyset", "list", "--nope"],
            "No such option '--nope'.",
            "read: trust keyset list --help",
        ),
        (["keyset", "add"], "Missing argument 'NAME'.", "read: trust keyset add --help"),
        (["nope"], "No such command 'nope'.", "read: trust --help"),
    ],
)
def test_a_wrong_command_line_is_json_too(words: list[str], message: str, hint: str) -> None:
    argv = [sys.executable, "-c", TRUST, *words, "--json"]
    result = run(argv, env={"HOME": "/nonexistent"}, timeout=PATIENCE, check=False)
    said = json.loads(result.stderr)
    assert result.status == 2
    assert said == {"error": "UsageError", "message": message, "hint": hint}


def test_a_wrong_command_line_as_text() -> None:
    """click says it, who knows where help is; no password that somebody typed is said again."""
    argv = [sys.executable, "-c", TRUST, "keyset", "list", "docker://me:secret@h/x"]
    result = run(argv, env={"HOME": "/nonexistent"}, timeout=PATIENCE, check=False)
    assert result.status == 2
    assert result.stderr.startswith(b"Usage: trust keyset list")
    assert b"docker://...@h/x" in result.stderr
    assert b"secret" not in result.stderr


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


def test_what_is_made_does_not_depend_on_the_umask(tmp_path: Path) -> None:
    """As for buildah: a folder of an image that only its owner may enter is of no use in it."""
    code = (
        "import os, click; os.umask(0o077); from machineos.cli import app\n"
        "group = click.Group('g')\n"
        f"group.command('make')(lambda: os.mkdir({str(tmp_path / 'made')!r}))\n"
        "import sys; sys.argv = ['g', 'make']; app.main(group)"
    )
    env = {"PYTHONPATH": ":".join(sys.path), "HOME": str(tmp_path)}
    run([sys.executable, "-c", code], timeout=60, env=env)
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o755
