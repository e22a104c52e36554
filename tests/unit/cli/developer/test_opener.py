"""Every command finds a registry, and who we are there, in the same way."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from fakes.registry import PASSWORD, USER, FakeRegistry, fake_registry
from machineos.cli.developer.mosb import mosb
from machineos.errors import AuthError, MissingError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def locked() -> Iterator[FakeRegistry]:
    """A registry that wants a password and has nothing else."""
    with fake_registry() as server:
        server.faults.auth = "basic"
        yield server


RECIPE = """\
web:
  from: {{type: docker, url: "docker://{host}/a/b:1"}}
"""
COMMANDS = {
    "convert": "image convert docker://{host}/a/b:1 --layout oci:{folder}/o --tag x",
    "build": "image build -f {folder}/stacker.yaml --layout oci:{folder}/o",
    "show": "manifest show --repo {host} --name a/b:1",
}


@pytest.mark.parametrize(
    "command",
    ["convert", pytest.param("build", marks=pytest.mark.root), "show"],
)
@pytest.mark.parametrize("said", ["environment", "option"])
def test_every_command_finds_the_credentials(
    locked: FakeRegistry, tmp_path: Path, command: str, said: str
) -> None:
    pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    file = tmp_path / "auth.json"
    file.write_text(json.dumps({"auths": {locked.host: {"auth": pair}}}))
    (tmp_path / "stacker.yaml").write_text(RECIPE.format(host=locked.host))
    arguments = COMMANDS[command].format(host=locked.host, folder=tmp_path).split()
    home = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": "", "DOCKER_CONFIG": ""}
    refused = CliRunner(env=home).invoke(mosb, arguments)
    assert isinstance(refused.exception, AuthError)
    known = {"REGISTRY_AUTH_FILE": str(file)} if said == "environment" else {}
    more = ["--authfile", str(file)] if said == "option" else []
    let_in = CliRunner(env={**home, **known}).invoke(mosb, [*arguments, *more])
    # We are let in, and there is nothing.
    assert isinstance(let_in.exception, MissingError), let_in.output
