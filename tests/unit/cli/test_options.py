"""Each option that several commands take is declared once, and means the same everywhere."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import machineos.cli
from machineos.cli import options
from machineos.cli.developer.machine import cli as machine
from machineos.cli.developer.mosb import mosb
from machineos.cli.developer.trust import trust
from machineos.cli.operator.mosctl import mosctl

SOURCE = Path(machineos.cli.__file__).parent


def declared() -> Counter[str]:
    """How often the source declares each long option."""
    found: Counter[str] = Counter()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "click.option":
                names = [str(arg.value) for arg in node.args if isinstance(arg, ast.Constant)]
                found.update(name for name in names if name.startswith("--"))
    return found


@pytest.mark.parametrize(
    "option",
    [
        "--plain-http",
        "--tls-ca",
        "--authfile",
        "--passphrase-file",
        "--json",
        "--cache",
        "--keyset",
    ],
)
def test_it_is_declared_once(option: str) -> None:
    assert declared()[option] == 1


def test_a_cache_is_a_place_for_every_program(tmp_path: Path) -> None:
    """mmdebstrap runs in a folder of its own, and would look for ours in that."""
    found = []

    @click.command()
    @options.cache
    def command(cache: Path | None) -> None:
        found.append(cache)

    with chdir(tmp_path):
        for arguments in (["--cache", "c"], ["--cache", "/c"], []):
            assert CliRunner().invoke(command, arguments).exit_code == 0
    assert found == [tmp_path / "c", Path("/c"), None]


def commands(group: click.Command, above: str = "") -> Iterator[tuple[str, click.Command]]:
    name = f"{above} {group.name}".strip()
    if isinstance(group, click.Group):
        for command in group.commands.values():
            yield from commands(command, name)
    else:
        yield name, group


def uses(option: str) -> dict[str, click.Option]:
    found = {}
    for group in (trust, mosb, machine, mosctl):
        for name, command in commands(group):
            for parameter in command.params:
                if isinstance(parameter, click.Option) and option in parameter.opts:
                    found[name] = parameter
    return found


@pytest.mark.parametrize("option", ["--plain-http", "--passphrase-file", "--json"])
def test_it_is_the_same_in_every_command(option: str) -> None:
    found = uses(option)
    assert len(found) > 2
    first = next(iter(found.values()))
    for name, other in found.items():
        assert (other.name, other.help, other.is_flag, other.required) == (
            first.name,
            first.help,
            first.is_flag,
            first.required,
        ), name


def test_whoever_speaks_to_registries_is_told_the_same() -> None:
    developers = {name for name in uses("--plain-http") if not name.startswith("mosctl")}
    assert {"mosb image build", "mosb image convert", "mosb manifest publish", "trust launch"} <= (
        developers
    )
    assert set(uses("--tls-ca")) == set(uses("--authfile")) == developers


def test_whatever_shows_something_shows_json() -> None:
    assert {"trust keyset list", "mosb manifest show", "machine info", "mosctl status"} <= set(
        uses("--json")
    )


def test_what_signs_takes_a_passphrase() -> None:
    assert {
        "trust keyset add", "trust launch", "mosb bootkit build", "mosb media build",
        "mosb manifest publish",
    } <= set(uses("--passphrase-file"))  # fmt: skip
