from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from machineos.cli.developer.mosb_image import image
from machineos.errors import DocumentError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(image, [str(word) for word in words])


@pytest.mark.root
@pytest.mark.tool("mksquashfs")
@pytest.mark.tool("veritysetup")
def test_build_then_convert(tmp_path: Path) -> None:
    (tmp_path / "hello").write_text("hi")
    recipe = tmp_path / "stacker.yaml"
    recipe.write_text(
        "a:\n  from: {type: scratch}\n  import: [{path: hello, dest: /}]\n  cmd: ${{CMD}}\n"
    )
    out = f"oci:{tmp_path / 'out'}"
    common = ("--cache", tmp_path / "cache", "--json")
    result = run("build", "-f", recipe, "--layout", out, "--substitute", "CMD=x y", *common)
    assert result.exit_code == 0, result.output
    assert "a: packing squashfs" in result.stderr
    (built,) = json.loads(result.stdout)
    assert (built["tag"], built["layout"]) == ("a", out)
    other = f"oci:{tmp_path / 'other'}"
    result = run("convert", f"{out}:a", "--layout", other, "--tag", "b", *common)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)[0]["digest"] == built["digest"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--substitute", "X"), "is not NAME=VALUE"),
        (("--substitute", "X=1", "--substitute", "X=2"), "X: is given twice"),
        (("--layout", "out"), "is not oci:DIR"),
    ],
)
def test_contradictions_are_usage_errors(
    tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    (tmp_path / "r").write_text("a: {from: {type: scratch}}\n")
    result = run("build", "-f", tmp_path / "r", *words)
    assert isinstance(result.exception, UsageError)
    assert message in result.exception.message


def test_faults_of_a_recipe_reach_the_user(tmp_path: Path) -> None:
    (tmp_path / "r").write_text("a: {from: {type: built, tag: b}}\nc: {}\n")
    result = run("build", "-f", tmp_path / "r")
    assert isinstance(result.exception, DocumentError)
    assert len(result.exception.faults) == 2
