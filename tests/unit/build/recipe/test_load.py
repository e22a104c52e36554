from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from machineos.build.recipe.load import load_recipe
from machineos.build.recipe.recipe import MAX_FILES, MAX_STAGES, Recipe, parse_recipe
from machineos.errors import DocumentError, MissingError

if TYPE_CHECKING:
    from pathlib import Path

S = "{from: {type: scratch}}"


def write(folder: Path, name: str, text: str, *needs: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    config = f"config: {{prerequisites: [{', '.join(needs)}]}}\n" if needs else ""
    path.write_text(config + text)
    return path


def names(recipe: Recipe, wanted: tuple[str, ...] | None = None) -> list[tuple[str, str]]:
    return [(stage.name, stage.folder) for stage in recipe.closure(wanted)]


def refused(path: Path) -> DocumentError:
    with pytest.raises(DocumentError) as caught:
        load_recipe(path, substitutions={})
    return caught.value


def test_a_recipe_that_needs_no_other(tmp_path: Path) -> None:
    path = write(tmp_path, "r.yaml", f"a: {S}\n")
    assert names(load_recipe(path, substitutions={})) == [("a", "")]
    (tmp_path / "link").symlink_to("r.yaml")
    assert load_recipe(tmp_path / "link", substitutions={}).name == str(tmp_path / "link")
    with pytest.raises(MissingError):
        load_recipe(tmp_path / "none.yaml", substitutions={})


def test_stages_of_prerequisites_are_built_when_they_are_needed(tmp_path: Path) -> None:
    write(tmp_path, "sub/deep/d.yaml", f"d: {S}\nunused: {S}\n")
    write(tmp_path, "sub/c.yaml", "c: {from: {type: built, tag: d}}\n", "deep/d.yaml")
    path = write(
        tmp_path,
        "r.yaml",
        "a: {from: {type: built, tag: c}, import: '${{X}}'}\n",
        "sub/c.yaml",
        "./sub/deep/d.yaml",
    )
    recipe = load_recipe(path, substitutions={"X": "x"})
    assert names(recipe) == [("d", "sub/deep"), ("c", "sub"), ("a", "")]
    assert names(recipe, ("unused",)) == [("unused", "sub/deep")]


def test_a_recipe_of_prerequisites_alone_wants_all_their_stages(tmp_path: Path) -> None:
    write(tmp_path, "x.yaml", f"x: {S}\n")
    write(tmp_path, "y.yaml", f"y: {S}\n")
    path = write(tmp_path, "r.yaml", "", "x.yaml", "y.yaml")
    assert names(load_recipe(path, substitutions={})) == [("x", ""), ("y", "")]


def test_what_is_outside_of_the_folder_is_read_when_the_user_says_so(tmp_path: Path) -> None:
    write(tmp_path, "base/b.yaml", f"b: {S}\n")
    path = write(tmp_path, "app/r.yaml", "a: {from: {type: built, tag: b}}\n", "../base/b.yaml")
    (fault,) = refused(path).faults
    assert fault.message == (
        "'../base/b.yaml' leads out of the recipe's folder: if it may be read, "
        f"--allow-folder {tmp_path}/base"
    )
    recipe = load_recipe(path, substitutions={}, allowed=(tmp_path / "x", tmp_path / "base"))
    assert names(recipe) == [("b", "../base"), ("a", "")]


@pytest.mark.parametrize("name", ["/etc/hostname", "link.yaml", "folder/b.yaml", "../../x"])
def test_no_way_leads_out(tmp_path: Path, name: str) -> None:
    write(tmp_path, "out/b.yaml", f"b: {S}\n")
    path = write(tmp_path, "in/r.yaml", f"a: {S}\n", name)
    (tmp_path / "in/link.yaml").symlink_to("../out/b.yaml")
    (tmp_path / "in/folder").symlink_to(tmp_path / "out")
    assert "leads out of the recipe's folder" in refused(path).message


def test_what_is_no_recipe_is_named(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    for name in ("none.yaml", "loop", "folder", "x" * 300):
        path = write(tmp_path, "r.yaml", f"a: {S}\n", name)
        fault = refused(path).faults[0]
        assert (fault.path, fault.line) == ("config.prerequisites[0]", 1)
        assert fault.message == f"{name[:80]!r} is not there"


def test_a_circle_of_recipes_is_named(tmp_path: Path) -> None:
    write(tmp_path, "b.yaml", f"b: {S}\n", "a.yaml")
    path = write(tmp_path, "a.yaml", f"a: {S}\n", "b.yaml")
    error = refused(path)
    assert error.name == str(tmp_path / "b.yaml")
    assert error.faults[0].message == (
        f"'a.yaml' goes in a circle: {tmp_path}/a.yaml -> {tmp_path}/b.yaml -> {tmp_path}/a.yaml"
    )


def test_two_recipes_with_stages_of_one_name(tmp_path: Path) -> None:
    write(tmp_path, "b.yaml", f"same: {S}\n")
    path = write(tmp_path, "a.yaml", f"a: {S}\nsame: {S}\n", "b.yaml")
    (fault,) = refused(path).faults
    assert str(fault) == (
        f"line 3: same: is a stage of {tmp_path}/b.yaml, too: give one another name"
    )


def test_faults_are_those_of_the_file_that_has_them(tmp_path: Path) -> None:
    write(tmp_path, "b.yaml", "b: {from: {type: built, tag: none}, x: y}\n")
    path = write(tmp_path, "a.yaml", "a: {from: {type: nope}}\n", "b.yaml")
    error = refused(path)
    assert error.name == str(tmp_path / "b.yaml")
    assert len(error.faults) == 2


def test_files_bytes_and_stages_are_bounded(tmp_path: Path) -> None:
    for index in range(MAX_FILES + 1):
        write(tmp_path, f"{index}.yaml", f"s{index}: {S}\n", f"{index + 1}.yaml")
    error = refused(tmp_path / "0.yaml")
    assert error.name == str(tmp_path / f"{MAX_FILES - 1}.yaml")
    assert "is too much" in error.message
    path = write(tmp_path, "many.yaml", "", *["x.yaml"] * MAX_FILES)
    assert "are too many" in refused(path).message
    text = "".join(f"s{index}: {S}\n" for index in range(MAX_STAGES + 1))
    with pytest.raises(DocumentError, match=f"has {MAX_STAGES} stages at most"):
        parse_recipe(text.encode(), name="r", substitutions={})
    large = [f"large{index}.yaml" for index in range(6)]
    for name in large:
        write(tmp_path, name, f"{name}: {S}\n#{'x' * 1_000_000}\n")
    error = refused(write(tmp_path, "r.yaml", "", *large))
    assert error.faults[0].message.startswith("'large5.yaml' is too much")


def test_a_recipe_that_is_no_file_has_no_prerequisites() -> None:
    with pytest.raises(DocumentError, match="cannot be found: this recipe is no file"):
        parse_recipe(b"config: {prerequisites: [x]}\n", name="r", substitutions={})
