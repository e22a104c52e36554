"""The table of exit codes (docs/commands.md), line by line: a command that ends so."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from machineos.core.command import Result
from machineos.core.run import run
from machineos.trust.keys.contents import ROLES
from machineos.trust.keys.keyset import Keyset
from waiting import PATIENCE

PAGE = Path(__file__).parents[3] / "docs/commands.md"
MODULES = {
    "trust": "machineos.cli.developer.trust", "mosb": "machineos.cli.developer.mosb",
    "machine": "machineos.cli.developer.machine", "mosctl": "machineos.cli.operator.mosctl",
}  # fmt: skip
BY_ITSELF = """
import click, os, signal
from machineos.cli import app
group = click.Group("g")
command = group.command("stop")(lambda **_: os.kill(os.getpid(), signal.SIGTERM))
click.option("--json", is_flag=True)(command)
app.main(group)
"""


class Place(NamedTuple):
    """A home with a keyset of good and one of bad certificates, and a machine that is not on."""

    home: Path
    keyset: Keyset

    def call(self, line: str, *words: str, given: bytes | None = None) -> Result:
        """Run the command in ``line``, with ``words`` behind it."""
        program, *rest = line.split()
        code = f"from {MODULES[program]} import main; main()"
        return self.start([sys.executable, "-c", code, *rest, *words], given)

    def start(self, argv: list[str], given: bytes | None = None) -> Result:
        """Run a program in this home."""
        env = {"HOME": str(self.home), "PYTHONPATH": ":".join(sys.path)}
        return run(argv, env=env, timeout=PATIENCE, check=False, input=given)


@pytest.fixture
def place(tmp_path: Path, one: Keyset) -> Place:
    keysets = tmp_path / ".local/share/machine/trust/keys"
    for role in ROLES:
        (keysets / "bad" / role).mkdir(parents=True)
        (keysets / "bad" / role / "cert.pem").write_text("no certificate")
    (keysets / "good").symlink_to(one.root)
    made = Place(tmp_path, one)
    assert made.call("machine init web").status == 0
    return made


def a_registry_that_is_not_there(place: Place) -> Result:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # nobody listens
        repo = f"127.0.0.1:{bound.getsockname()[1]}"
        return place.call("mosb manifest show --name a:1 --repo", repo)


def a_program_that_fails(place: Place) -> Result:
    """Or is not installed."""
    pair, file = place.keyset.key("uefi-db"), place.home / "no.efi"
    file.write_text("no program")
    words = ["--key", str(pair.key_path), "--cert", str(pair.cert_path), "--output", f"{file}.out"]
    return place.call("trust sign efi", str(file), *words)


def a_home_that_is_a_file(place: Place) -> Result:
    (place.home / ".config").rename(place.home / ".old")
    (place.home / ".config").touch()
    return place.call("machine init other")


CASES: dict[int, tuple[str, Callable[[Place], Result]]] = {
    0: ("", lambda place: place.call("trust keyset list")),
    1: ("MachineOSError", a_home_that_is_a_file),
    2: ("UsageError", lambda place: place.call("trust keyset list --nope")),
    3: ("DocumentError", lambda place: place.call("machine init -f -", given=b"nope: 1\n")),
    4: ("SignatureError", lambda place: place.call("trust keyset show bad")),
    5: ("MissingError", lambda place: place.call("trust keyset show none")),
    6: ("ConflictError", lambda place: place.call("machine init web")),
    7: ("TransferError", a_registry_that_is_not_there),
    8: ("ToolError", a_program_that_fails),
    9: ("MachineError", lambda place: place.call("machine console web")),
    11: ("BootError", lambda place: place.call("mosctl install h.x/a:1")),
    130: ("", lambda place: place.start([sys.executable, "-c", BY_ITSELF, "stop"])),
}


@pytest.mark.parametrize("code", CASES)
def test_a_command_that_ends_so(place: Place, code: int) -> None:
    ended = CASES[code][1](place)
    assert (ended.status, b"Traceback" in ended.stderr) == (code, False), ended.stderr
    assert bool(ended.stderr) == (code != 0)


@pytest.mark.parametrize("code", [2, 4, 5, 7])
def test_with_json_the_error_is_json_with_its_name(place: Place, code: int) -> None:
    name, act = CASES[code]

    class Json(Place):
        __slots__ = ()

        def call(self, line: str, *words: str, given: bytes | None = None) -> Result:
            return super().call(line, *words, "--json", given=given)

    ended = act(Json(*place))
    assert ended.status == code
    assert json.loads(ended.stderr)["error"] == name
    assert ended.stdout == b""


def test_who_is_interrupted_says_so_in_json(place: Place) -> None:
    argv = [sys.executable, "-c", BY_ITSELF, "stop", "--json"]
    ended = place.start(argv)
    assert ended.status == 130
    assert json.loads(ended.stderr) == {
        "error": "Interrupted",
        "message": "interrupted",
        "hint": "",
    }


def test_a_reader_that_is_gone_is_one(place: Place) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    code = f"from {MODULES['trust']} import main; main()"
    env = {"HOME": str(place.home), "PYTHONPATH": ":".join(sys.path)}
    argv = [sys.executable, "-c", code, "keyset", "list"]
    ended = run(argv, env=env, timeout=PATIENCE, check=False, stdout=writer)
    os.close(writer)
    assert (ended.status, ended.stderr) == (1, b"")


def test_every_line_of_the_table_is_tried() -> None:
    """A full disk needs root: ``test_app.py::test_a_full_disk``."""
    rows = re.findall(r"^\| (\d+) \|", PAGE.read_text().partition("## Exit codes")[2], re.MULTILINE)
    assert {int(row) for row in rows} == {*CASES, 10}
