from __future__ import annotations

import re
import socket
import tempfile
from pathlib import Path

import pytest

from machineos.core import run
from machineos.errors import ToolError
from machineos.host.unit import systemd
from waiting import PATIENCE

# In the form of systemctl show: a unit that runs, one that failed, one that is unknown.
SHOW = """\
Result=success
NRestarts=2
ExecMainCode=0
ExecMainStatus=0
MainPID=412
Id=machineos-zot.service
LoadState=loaded
ActiveState=active
SubState=running

Result=exit-code
NRestarts=5
ExecMainCode=1
ExecMainStatus=127
MainPID=0
Id=machineos-bad.service
LoadState=loaded
ActiveState=failed
SubState=failed

Result=success
NRestarts=0
ExecMainCode=0
ExecMainStatus=0
MainPID=0
Id=machineos-none.service
LoadState=not-found
ActiveState=inactive
SubState=dead
"""


def test_show_of_several_units() -> None:
    found = systemd.parse_show(SHOW)
    assert found["machineos-zot.service"].running
    assert found["machineos-zot.service"].main_pid == 412
    assert found["machineos-bad.service"].exit_status == 127
    assert not found["machineos-bad.service"].running
    assert found["machineos-none.service"].load == "not-found"
    with pytest.raises(ToolError):
        systemd.parse_show("Id=x.service\n")


def test_words_of_a_command_line() -> None:
    line = systemd.exec_line(["/bin/x", "", "a b", 'q"\\', "$HOME", "100%", ";", "\x01\n"])
    assert line == ':/bin/x "" "a b" "q\\"\\\\" "$HOME" "100%%" ";" "\\x01\\n"'


@pytest.mark.tool("systemd-analyze")
def test_systemd_takes_our_units(tmp_path: Path) -> None:
    units = Path(__file__).parents[4] / "src/machineos/build/os/hostfs/systemd"
    line = systemd.exec_line(["/bin/true", 'a"b', "$x", "%n", "new\nline", "é"])
    (tmp_path / "ours.service").write_text(f"[Service]\nType=exec\nExecStart={line}\n")
    # The program of the unit is on the appliance only; what is checked is the unit.
    text = (units / "mosd.service").read_text()
    assert "ExecStart=/usr/lib/machineos/mosd\n" in text
    (tmp_path / "mosd.service").write_text(text.replace("/usr/lib/machineos/mosd", "/bin/true"))
    for name in ("ours.service", "mosd.service"):
        result = run.run(
            ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", tmp_path / name],
            timeout=60,
        )
        assert b"Unknown" not in result.stderr, result.stderr


@pytest.mark.parametrize("abstract", [False, True])
def test_ready_is_one_datagram(tmp_path: Path, abstract: bool) -> None:
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + name if abstract else name)
        receiver.settimeout(PATIENCE)
        systemd.notify("@" + name if abstract else name, "READY=1")
        assert receiver.recv(100) == b"READY=1"
    systemd.notify("", "READY=1")
    with pytest.raises(ToolError):
        systemd.notify(str(tmp_path / "absent"), "READY=1")


_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')
_CODE = re.compile(r"\\([0-7]{3}|.)")
_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def shown_words(text: str) -> list[str]:
    """Undo how systemd shows a command line: shell words, C escapes in double quotes."""

    def one(match: re.Match[str]) -> str:
        code = match[1]
        return chr(int(code, 8)) if len(code) == 3 else _LETTERS.get(code, code)

    return [m[2] if m[2] is not None else _CODE.sub(one, m[1]) for m in _WORD.finditer(text)]


@pytest.mark.root
@pytest.mark.tool("runuser")
@pytest.mark.tool("/usr/lib/systemd/systemd")
def test_systemd_itself_reads_the_words_that_we_wrote() -> None:
    words = ["", "a b", "q\"'\\x", "$HOME ${X} $$", "100%n %% %", ";", "\\;", "new\nline\ttab"]
    words += ["\x01\x1f\x7f", "é", "'lead", '"', "\\", "-", "@x", "+", "!", ":", "#", "a=b", "~"]
    words += [" ", "x\\", "\\x41", "\\n", "%%n", "a;b", "\\u0041", "`id`", "{a,b}", "*"]
    with tempfile.TemporaryDirectory(prefix="machineos-unit-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        line = systemd.exec_line(["/bin/true", *words])
        unit = folder / "machineos-words.service"
        unit.write_text(f"[Unit]\nDefaultDependencies=no\n[Service]\nExecStart={line}\n")
        unit.chmod(0o644)
        # Test mode refuses root, changes nothing, and shows the units as it read them.
        shown = run.run(
            [
                *("runuser", "-u", "nobody", "--", "env", f"SYSTEMD_UNIT_PATH={name}"),
                *("XDG_RUNTIME_DIR=/nonexistent", "/usr/lib/systemd/systemd"),
                *("--test", "--system", f"--unit={unit.name}", "--no-pager"),
            ],
            timeout=60,
        ).stdout.decode()
    lines = [line.strip() for line in shown.splitlines() if 'Command Line: /bin/true ""' in line]
    assert len(lines) == 1, shown[-2000:]
    assert shown_words(lines[0].removeprefix("Command Line: ")) == ["/bin/true", *words]
