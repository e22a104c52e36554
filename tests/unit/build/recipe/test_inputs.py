"""The record of what an image was built of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fakes.repository import MemoryRepository
from machineos.build.recipe.inputs import (
    FOLDER,
    Input,
    Inputs,
    of_all,
    of_stage,
    parse_inputs,
    parse_packages,
    record_name,
)
from machineos.build.recipe.inputsfile import keep_inputs, read_inputs
from machineos.build.recipe.recipe import parse_recipe
from machineos.core.digest import Digest
from machineos.errors import DocumentError
from machineos.oci.layout.folder import LayoutRepository
from unit.build.images import put

if TYPE_CHECKING:
    from pathlib import Path

HEX = Digest.of(b"x").hex
STATUS = b"""\
Package: bash
Status: install ok installed
Version: 5.2-1
Description: a shell
 Package: not this

Package: gone
Status: deinstall ok config-files
Version: 1

Package: zlib1g
Version: 1:1.3
Status: install ok installed
"""
RECIPE = """\
base:
  from: {type: debian, suite: trixie, snapshot: 20260101T000000Z,
         mirror: "https://me:secret@mirror.example/debian"}
web:
  from: {type: docker, url: "docker://registry.example/a:1"}
  import:
    - app
    - {path: "https://me:secret@example.com/x.tar?token=1", hash: HEX}
    - stacker://base/etc/passwd
  run: "echo hello"
tar:
  from: {type: tar, url: base.tar}
made:
  from: {type: tar, url: stacker://tar/export.tar}
"""


def test_what_a_stage_is_made_of_names_no_password_and_no_other_stage() -> None:
    recipe = parse_recipe(RECIPE.replace("HEX", HEX).encode(), name="recipe", substitutions={})
    stages = {stage.name: stage for stage in recipe.stages}
    made = of_stage(stages["web"], f"image sha256:{HEX}", [HEX, HEX, HEX])
    assert [(item.kind, item.name) for item in made.inputs] == [
        ("image", "docker://registry.example/a:1"),
        ("import", "app"),
        ("import", "https://example.com/x.tar"),
        ("script", "web"),
    ]
    assert made.inputs[0].digest == Digest("sha256", HEX)
    tar = of_stage(stages["tar"], f"tar {HEX}", [])
    assert Input("tar", "tar", "base.tar", Digest("sha256", HEX)) in tar.inputs
    assert [item.kind for item in of_stage(stages["made"], f"tar {HEX}", []).inputs] == ["script"]
    debian = of_stage(stages["base"], "debian {}", [])
    name = "trixie https://mirror.example/debian 20260101T000000Z"
    assert Input("base", "debian", name) in debian.inputs


def test_what_is_recorded_of_a_script_is_no_way_to_its_secrets() -> None:
    def made(secret: str, word: str = "hello") -> Inputs:
        text = f"a: {{from: {{type: scratch}}, build_env: {{S: {secret}}}, run: echo {word}}}"
        (stage,) = parse_recipe(text.encode(), name="recipe", substitutions={}).stages
        return of_stage(stage, "scratch", [])

    assert made("one") == made("two")
    assert made("one") != made("one", "world")


def test_packages_are_those_that_are_installed() -> None:
    assert parse_packages(STATUS) == ("bash 5.2-1", "zlib1g 1:1.3")
    assert parse_packages(b"\xff\n\n\n: \n") == ()
    below = [Inputs(packages=("a 1",)), Inputs((Input("x", "script", "x"),), ("b 1",))]
    assert of_all(Inputs(), below, b"").packages == ("a 1", "b 1")
    assert of_all(Inputs(), below, STATUS).packages == parse_packages(STATUS)
    assert of_all(Inputs(), below, STATUS).inputs == below[1].inputs


def test_a_record_is_beside_its_image_and_leaves_the_layout_as_it_is(tmp_path: Path) -> None:
    repository = LayoutRepository(tmp_path, writable=True)
    image = put(repository, b"").digest
    index = (tmp_path / "index.json").read_bytes()
    for digest in (Digest.of(b"c"), Digest.of(b"d")):
        record = Inputs((Input("a", "import", "b", digest), Input("a", "kernel", "k")), ("d 1",))
        keep_inputs(repository, image, record)
        assert read_inputs(repository, image) == record
    assert (tmp_path / "index.json").read_bytes() == index
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == [f"sha256-{image.hex}.json"]
    assert read_inputs(repository, Digest.of(b"other")) == Inputs()
    assert read_inputs(MemoryRepository(), image) == Inputs()
    keep_inputs(MemoryRepository(), image, Inputs())


def test_a_record_that_is_no_file_is_not_read(tmp_path: Path) -> None:
    repository = LayoutRepository(tmp_path, writable=True)
    image = put(repository, b"").digest
    (tmp_path / FOLDER).write_text("")
    assert read_inputs(repository, image) == Inputs()
    (tmp_path / FOLDER).unlink()
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / record_name(image)).symlink_to("/etc/passwd")
    with pytest.raises(DocumentError, match="symbolic link"):
        read_inputs(repository, image)


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b'{"version":2,"inputs":[],"packages":[]}',
        b'{"version":1,"inputs":[],"packages":[],"more":1}',
        b'{"version":1,"inputs":[{"stage":"a","kind":"other","name":"b"}],"packages":[]}',
        b'{"version":1,"inputs":[{"stage":"a","kind":"tar","name":"b","digest":1}],"packages":[]}',
    ],
)
def test_a_record_of_another_form_is_refused(data: bytes) -> None:
    with pytest.raises(DocumentError):
        parse_inputs(data, name="record")
