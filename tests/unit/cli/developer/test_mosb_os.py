from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from machineos.cli.app import read_passphrase
from machineos.cli.developer.mosb_os import bootkit, hostfs, media
from machineos.errors import MissingError


@pytest.mark.parametrize("group", [hostfs, bootkit, media])
def test_help_has_an_example(group: click.Group) -> None:
    result = CliRunner().invoke(group, ["build", "--help"])
    assert result.exit_code == 0
    assert f"mosb {group.name} build" in result.output


@pytest.mark.parametrize(
    ("group", "words", "part"),
    [
        (hostfs, [], "--keyset"),
        (bootkit, ["--keyset", "k", "--variant", "other"], "--variant"),
        (bootkit, ["--keyset", "k", "--kernel", "other"], "--kernel"),
        (bootkit, ["--keyset", "k", "--microcode", "arm"], "--microcode"),
        (bootkit, ["--keyset", "k", "--firmware", "a,b"], "'a,b' is not the name of a Debian"),
        (media, [], "--project"),
    ],
)
def test_wrong_usage(group: click.Group, words: list[str], part: str) -> None:
    result = CliRunner().invoke(group, ["build", *words])
    assert result.exit_code == 2
    assert part in result.stderr


def test_a_keyset_that_is_not_there(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data"),
           "XDG_CACHE_HOME": str(tmp_path / "cache"), "XDG_CONFIG_HOME": str(tmp_path)}  # fmt: skip
    for group in (hostfs, bootkit):
        result = CliRunner().invoke(group, ["build", "--keyset", "none"], env=env)
        assert isinstance(result.exception, MissingError)


def test_passphrase_file(tmp_path: Path) -> None:
    assert read_passphrase(None) is None
    (tmp_path / "p").write_text("secret\n")
    secret = read_passphrase(tmp_path / "p")
    assert secret is not None
    assert secret.reveal() == b"secret"
    assert "secret" not in repr(secret).replace("Secret", "")
