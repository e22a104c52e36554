from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

from fakes.archive import pack
from machineos.cli.developer.mosb_image import image
from machineos.core.digest import Digest
from machineos.errors import DocumentError, UsageError
from unit.build.foreign.test_archives import LAYERS, saved
from unit.build.images import layout, put

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


@pytest.mark.root
@pytest.mark.tool("mksquashfs")
@pytest.mark.tool("veritysetup")
@pytest.mark.tool("zstd")
def test_archives_become_the_same_image_as_what_they_were_made_of(tmp_path: Path) -> None:
    put(layout(tmp_path / "l"), *LAYERS, tag="1")
    sources = [
        f"oci:{tmp_path / 'l'}:1",
        f"oci-archive:{pack(tmp_path / 'l', tmp_path / 'o.tar')}:1",
        f"docker-archive:{saved(tmp_path / 'd.tar', *LAYERS, body=image_config())}",
    ]
    found = set()
    for source in sources:
        result = run("convert", source, "--layout", f"oci:{tmp_path / 'out'}", "--tag", "x",
                     "--cache", tmp_path / "cache", "--json")  # fmt: skip
        assert result.exit_code == 0, result.output
        assert "packing squashfs" in result.stderr
        found.add(json.loads(result.stdout)[0]["digest"])
    assert len(found) == 1


def image_config() -> bytes:
    """What ``put`` says of an image."""
    rootfs = {"type": "layers", "diff_ids": [str(Digest.of(layer)) for layer in LAYERS]}
    run_as = {"Entrypoint": ["/bin/x"], "Env": ["A=b"], "User": "7"}
    return json.dumps(
        {"architecture": "amd64", "os": "linux", "config": run_as, "rootfs": rootfs}
    ).encode()


@pytest.mark.root
@pytest.mark.tool("mksquashfs")
@pytest.mark.tool("veritysetup")
def test_a_recipe_goes_on_from_what_is_in_the_layout(tmp_path: Path) -> None:
    out = f"oci:{tmp_path / 'out'}"
    for name, base in (("a", "type: scratch"), ("b", "type: oci, url: '${{STACKER_OCI_DIR}}:a'")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "stacker.yaml").write_text(f"{name}: {{from: {{{base}}}}}\n")
        recipe = tmp_path / name / "stacker.yaml"
        result = run("build", "-f", recipe, "--layout", out, "--cache", tmp_path / "cache")
        assert result.exit_code == 0, result.output


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


RECIPE = """\
base:
  build_only: true
  from: {type: docker, url: "oci:${{STACKER_OCI_DIR}}:x"}
web:
  from: {type: built, tag: base}
  import: ["${{NAME}}", {path: "stacker://base/f", dest: /f}]
  run: make
small: {from: {type: debian, suite: trixie, packages: [busybox]}}
none: {from: {type: scratch}}
tar: {from: {type: tar, url: x.tar}}
web2: {from: {type: oci, url: "docker://h/x"}}
"""


def test_a_recipe_is_shown_and_nothing_is_built(tmp_path: Path) -> None:
    (tmp_path / "r").write_text(RECIPE)
    (tmp_path / "v").write_text("NAME: of-the-file\nOTHER: x\n")
    before = sorted(tmp_path.iterdir())
    words = ("check", tmp_path / "r", "--layout", "oci:/out", "--substitute-file", tmp_path / "v")
    result = run(*words)
    assert result.exit_code == 0, result.output
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["RECIPE", "STAGE", "FROM", "IMPORTS", "SCRIPT", "IMAGE"],
        [f"{tmp_path}/r", "base", "oci", "/out:x", "0", "no", "no"],
        [f"{tmp_path}/r", "web", "built", "base", "2", "yes", "yes"],
        [f"{tmp_path}/r", "small", "debian", "trixie", "0", "no", "yes"],
        [f"{tmp_path}/r", "none", "scratch", "0", "no", "yes"],
        [f"{tmp_path}/r", "tar", "tar", "x.tar", "0", "no", "yes"],
        [f"{tmp_path}/r", "web2", "docker://h/x", "0", "no", "yes"],
    ]
    result = run(*words, "--substitute", "NAME=of-the-line", "--json")
    (shown,) = json.loads(result.stdout)
    assert shown["recipe"] == f"{tmp_path}/r"
    assert shown["stages"][1] == {
        "name": "web",
        "folder": "",
        "from": {"type": "built", "tag": "base"},
        "needs": ["base"],
        "imports": [
            {"path": "of-the-line", "dest": "", "sha256": ""},
            {"path": "stacker://base/f", "dest": "/f", "sha256": ""},
        ],
        "script": True,
        "image": True,
    }
    assert shown["stages"][2]["from"]["packages"] == ["busybox"]
    assert sorted(tmp_path.iterdir()) == before


def test_the_shell_completes_files() -> None:
    check = image.commands["check"]
    (argument,) = [param for param in check.params if param.name == "recipes"]
    items = argument.shell_complete(click.Context(check), "st")
    assert [(item.value, item.type) for item in items] == [("st", "file")]


def test_of_several_recipes_the_good_ones_are_shown_and_all_faults_told(tmp_path: Path) -> None:
    for name, text in (("a", "a: {}\n"), ("b", "b: {from: {type: scratch}}\n"), ("c", "c: x\n")):
        (tmp_path / name).write_text(text)
    result = run("check", *(tmp_path / name for name in "abc"))
    assert "scratch" in result.stdout
    assert isinstance(result.exception, DocumentError)
    assert result.exception.exit_code == 3
    assert [(fault.path, fault.line) for fault in result.exception.faults] == [
        (f"{tmp_path}/a: a.from", 1),
        (f"{tmp_path}/c: c", 1),
    ]
    assert result.exception.name == "2 of 3 recipes"
    result = run("check", tmp_path / "a", "--json")
    assert isinstance(result.exception, DocumentError)
    assert result.exception.name == f"{tmp_path}/a"
    assert json.loads(result.stdout) == []


def test_prerequisites_are_read_from_the_folder_that_is_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a/r").write_text("a: {from: {type: scratch}}\n")
    (tmp_path / "b/r").write_text(
        "config: {prerequisites: [../a/r]}\nb: {from: {type: built, tag: a}}\n"
    )
    result = run("check", tmp_path / "b/r")
    assert isinstance(result.exception, DocumentError)
    assert "--allow-folder" in result.exception.message
    result = run("check", tmp_path / "b/r", "--allow-folder", tmp_path / "a", "--json")
    (shown,) = json.loads(result.stdout)
    assert [(stage["name"], stage["folder"]) for stage in shown["stages"]] == [
        ("a", "../a"),
        ("b", ""),
    ]


def test_faults_of_a_recipe_reach_the_user(tmp_path: Path) -> None:
    (tmp_path / "r").write_text("a: {from: {type: built, tag: b}}\nc: {}\n")
    result = run("build", "-f", tmp_path / "r")
    assert isinstance(result.exception, DocumentError)
    assert len(result.exception.faults) == 2
