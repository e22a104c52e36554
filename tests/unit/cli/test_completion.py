"""Completion of names, as the shells ask for it."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

import pytest

from machineos.cli.completion import together
from machineos.core.run import run
from waiting import PATIENCE

PROGRAMS = {
    "trust": "from machineos.cli.developer.trust import main",
    "mosb": "from machineos.cli.developer.mosb import main",
    "machine": "from machineos.cli.developer.machine import main",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two keysets, one with two projects, and two machines; of all that only the names."""
    home = tmp_path_factory.mktemp("home")
    keys = home / ".local/share/machine/trust/keys"
    for folder in (
        "acme/manifest-ca", "acme/uefi-db", "acme/manifest/default", "acme/manifest/thermostat",
        "snakeoil/manifest-ca", "snakeoil/manifest/default",
    ):  # fmt: skip
        (keys / folder).mkdir(parents=True)
        (keys / folder / "cert.pem").touch()
    (keys / "no-keyset").mkdir()
    (keys / "acme/uefi-db/guid").touch()
    for name in ("vm1", "web"):
        (home / ".config/machine/machines" / name).mkdir(parents=True)
        (home / ".config/machine/machines" / name / "machine.yaml").touch()
    return home


def asked(home: Path, line: str, shell: str = "bash") -> list[str]:
    """Return what a program offers for the last word of a line; pieces as bash makes them."""
    words = line.split(" ")
    program = words[0]
    cword = words[-1] if shell == "fish" else str(len(words) - 1)
    env = {
        "HOME": str(home), "COMP_WORDS": "\n".join(words).rstrip(), "COMP_CWORD": cword,
        f"_{program.upper()}_COMPLETE": f"{shell}_complete", "PYTHONPATH": ":".join(sys.path),
    }  # fmt: skip
    argv = [sys.executable, "-c", f"{PROGRAMS[program]}; main()"]
    lines = run(argv, env=env, timeout=PATIENCE).text.splitlines()
    if shell == "zsh":
        return lines[1::3]
    return [line.partition(",")[2] for line in lines]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("mosb hostfs build --keyset ", ["acme", "snakeoil"]),
        ("mosb bootkit build --keyset s", ["snakeoil"]),
        ("mosb media build --project ", ["acme:", "snakeoil:"]),
        ("mosb media build --project acme :", ["default", "thermostat"]),
        ("mosb manifest publish --project acme : t", ["thermostat"]),
        ("mosb manifest verify --project = acme : t", ["thermostat"]),
        ("mosb manifest show --project none : ", []),
        ("trust launch --project acme : d", ["default"]),
        ("trust keyset show a", ["acme"]),
        ("trust keyset upgrade ", ["acme", "snakeoil"]),
        ("trust keyset show acme ", ["manifest-ca", "uefi-db", "manifest:default",
                                     "manifest:thermostat"]),
        ("trust keyset show acme manifest : t", ["thermostat"]),
        ("trust keyset show acme uefi-db ", ["cert.pem", "guid"]),
        ("trust project list s", ["snakeoil"]),
        ("trust sudi add acme t", ["thermostat"]),
        ("trust compute-pcr7 ", ["acme", "snakeoil"]),
        ("machine start ", ["vm1", "web"]),
        ("machine delete w", ["web"]),
    ],
)  # fmt: skip
def test_names(home: Path, line: str, offered: list[str]) -> None:
    assert asked(home, line) == offered


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_leave_words_whole(home: Path, shell: str) -> None:
    assert asked(home, "mosb media build --project acme:t", shell) == ["acme:thermostat"]


def test_somebody_without_keysets_is_offered_nothing(tmp_path: Path) -> None:
    assert asked(tmp_path, "mosb hostfs build --keyset ") == []
    assert asked(tmp_path, "machine start ") == []


def test_a_word_that_bash_took_apart() -> None:
    assert together(["m", "--project", "a", ":", "b"]) == ["m", "--project", "a:b"]
    assert together(["m", "--project", "=", "a", ":"]) == ["m", "--project", "a:"]
    assert together(["m", "oci", ":", "d", ":", "t", "x"]) == ["m", "oci:d:t", "x"]
    assert together(["m", "a", "::", "b", ""]) == ["m", "a::b", ""]
    assert together(["m", "--project", "="]) == ["m", "--project", ""]
    assert together(["m", "="]) == ["m", "="]
    assert together([]) == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_itself(home: Path, tmp_path: Path) -> None:
    """The script that is printed, loaded and asked: what it offers stands for the last piece."""
    program = tmp_path / "mosb"
    program.write_text(
        f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -c '{PROGRAMS['mosb']}; main()' \"$@\"\n"
    )
    program.chmod(0o755)
    script = (
        f'export PATH={tmp_path}:$PATH; eval "$(mosb completion bash)"; COMP_WORDS=(mosb media '
        "build --project acme : t); COMP_CWORD=6; _mosb_completion mosb t :; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    env = {"HOME": str(home), "PYTHONPATH": ":".join(sys.path)}
    assert run(["bash", "-c", script], env=env, timeout=PATIENCE).text == "thermostat"


def test_it_is_quick_because_nothing_heavy_is_imported(home: Path) -> None:
    code = (
        "import sys, atexit; atexit.register(lambda: print('LOADED', [m for m in "
        "('cryptography', 'rich', 'yaml', 'urllib3') if m in sys.modules]))\n"
        f"{PROGRAMS['mosb']}; main()"
    )
    env = {
        "HOME": str(home), "COMP_WORDS": "mosb hostfs build --keyset", "COMP_CWORD": "4",
        "_MOSB_COMPLETE": "bash_complete", "PYTHONPATH": ":".join(sys.path),
    }  # fmt: skip
    text = run([sys.executable, "-c", code], env=env, timeout=PATIENCE).text
    assert text.endswith("LOADED []")
