from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.units import decode_command
from machineos.core import run
from machineos.errors import ToolError
from machineos.host.unit.unitfile import MAX_COMMAND, exec_line, quote


def test_words_of_a_command_line() -> None:
    line = exec_line(["/bin/x", "", "a b", 'q"\\', "$HOME", "100%", ";", "\x01\n"])
    assert line == ':/bin/x "" "a b" "q\\"\\\\" "$HOME" "100%%" ";" "\\x01\\n"'


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_every_word_survives(words: list[str]) -> None:
    assert decode_command(exec_line(["/bin/x", *words])) == ["/bin/x", *words]


def test_only_what_is_not_printable_is_written_as_a_number() -> None:
    assert quote("\x1f !~\x7f\x80é") == '"\\x1f !~\\x7f\\u0080é"'
    assert quote("\u2028\U000e0001") == '"\\u2028\\U000e0001"'


def test_a_word_that_no_file_can_hold() -> None:
    with pytest.raises(ToolError, match=r"'a\\x00b' holds a zero byte"):
        quote("a\0b")
    with pytest.raises(ToolError, match=r"is not text that a unit file can hold"):
        quote("\ud800")


def test_a_command_may_have_256_kib() -> None:
    assert MAX_COMMAND == 262144
    room = MAX_COMMAND - len(':/bin/x ""')
    assert len(exec_line(["/bin/x", "a" * room])) == MAX_COMMAND
    # Counted in bytes, as systemd counts.
    for word in ("a" * (room + 1), "a" * (room - 1) + "é"):
        with pytest.raises(ToolError) as caught:
            exec_line(["/bin/x", word])
        assert str(caught.value) == "/bin/x: its command line is longer than 262144 bytes"


@pytest.mark.tool("systemd-analyze")
def test_systemd_takes_our_units(tmp_path: Path) -> None:
    units = Path(__file__).parents[4] / "src/machineos/build/os/hostfs/systemd"
    line = exec_line(["/bin/true", 'a"b', "$x", "%n", "new\nline", "é"])
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
        line = exec_line(["/bin/true", *words])
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
