from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from machineos.build.recipe.build import Settings, build
from machineos.build.recipe.inputsfile import read_inputs
from machineos.build.recipe.load import load_recipe
from machineos.build.recipe.mountpoints import ALWAYS
from machineos.core.clock import SystemClock
from machineos.core.digest import Digest
from machineos.core.jsondoc import parse_json
from machineos.core.run import find
from machineos.errors import (
    ArchiveError,
    DigestError,
    DocumentError,
    MissingError,
    PolicyError,
    ToolError,
)
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.documents import Descriptor, parse_manifest
from machineos.oci.model.repository import Repository
from unit.build.elf import program
from unit.build.images import EPOCH, layout, put, unpack
from unit.build.tarmaker import END, folder, member, symlink

pytestmark = [
    pytest.mark.system,
    pytest.mark.tool("busybox"),
    pytest.mark.tool("mksquashfs"),
    pytest.mark.tool("veritysetup"),
]

RECIPE = """\
base:
  build_only: true
  from: {type: tar, url: base.tar}
  environment: {FROM_BASE: "1"}
  entrypoint: [/bin/old]
  cmd: [old]
child:
  from: {type: built, tag: base}
  import:
    - hello
    - stacker://base/bin/tool
  environment: {OWN: "${{VALUE:2}}"}
  entrypoint: /bin/new 'a b'
  user: www
  run: |
    #!/bin/sh -e
    cat /stacker/imports/hello > /made
    echo $FROM_BASE$OWN >> /made
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    place = tmp_path / "recipe"
    place.mkdir()
    busybox = Path(str(find("busybox"))).read_bytes()
    data = (
        folder("bin/") + member("bin/busybox", busybox, mode=0o755) + symlink("bin/sh", "busybox")
    )
    data += symlink("bin/cat", "busybox") + member("bin/tool", b"tool") + END
    (place / "base.tar").write_bytes(data)
    (place / "hello").write_text("hi ")
    return place


def run_build(
    base: Path,
    text: str,
    *,
    cache: str = "cache",
    out: str = "out",
    epoch: int = EPOCH,
    stages: tuple[str, ...] | None = None,
    open_image: Callable[[str], tuple[Repository, str]] | None = None,
    allowed: tuple[Path, ...] = (),
    allow_engines: bool = False,
) -> tuple[dict[str, Descriptor], list[str]]:
    said: list[str] = []
    (base / "stacker.yaml").write_text(text)
    recipe = load_recipe(base / "stacker.yaml", substitutions={}, allowed=allowed)
    settings = Settings(
        base=base,
        cache=base.parent / cache,
        clock=SystemClock(),
        epoch=epoch,
        progress=said.append,
        open_image=open_image,
        allow_engines=allow_engines,
    )
    try:
        built = build(recipe, layout(base.parent / out), settings, stages=stages)
    finally:
        left = [path.name for path in (base.parent / cache).iterdir()]
        assert not [name for name in left if name.startswith("stage-")]
    return built, said


def image(base: Path, descriptor: Descriptor, out: str = "out") -> tuple[Path, dict[str, Any]]:
    repository = LayoutRepository(base.parent / out)
    manifest = parse_manifest(repository.manifest(str(descriptor.digest))[1], name="m")
    config = parse_json(repository.blob(manifest.config, limit=1 << 20), name="c")
    tree = base.parent / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    unpack(repository.blob_path(manifest.layers[0].digest), tree)
    return tree, config


def test_a_program_with_an_executable_stack_is_not_packed(base: Path) -> None:
    (base / "bad").write_bytes(program(7))
    text = RECIPE.replace("- hello\n", "- hello\n    - {path: bad, dest: /opt/bad, mode: '0755'}\n")
    with pytest.raises(ArchiveError) as caught:
        run_build(base, text)
    assert caught.value.message == (
        f"{base}/stacker.yaml: child: '/opt/bad' wants its stack to be executable"
    )
    assert caught.value.rule == "image-stack"
    (base / "bad").write_bytes(program(6))
    assert list(run_build(base, text)[0]) == ["child"]


def test_builds_stages_on_stages(base: Path) -> None:
    built, _ = run_build(base, RECIPE)
    assert list(built) == ["child"]
    assert LayoutRepository(base.parent / "out").tags() == ("child",)
    tree, config = image(base, built["child"])
    assert (tree / "made").read_text() == "hi 12\n"
    made = {path.strip("/").split("/")[0] for path in ALWAYS}
    assert {path.name for path in tree.iterdir()} == {"bin", "made", *made}
    assert config["config"] == {
        "Entrypoint": ["/bin/new", "a b"],
        "Env": [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "FROM_BASE=1",
            "OWN=2",
        ],
        "User": "www",
    }
    assert max(path.lstat().st_mtime for path in tree.rglob("*")) <= EPOCH


def test_a_script_that_leaves_a_deep_tree_is_refused_and_leaves_nothing(base: Path) -> None:
    (base.parent / "cache/stage-killed/tree").mkdir(parents=True)
    deep = "for i in $(seq 1500); do mkdir b; mv a b/a; mv b a; done".replace("m", "busybox m")
    deep = "busybox mkdir a; " + deep.replace("seq", "busybox seq")
    text = RECIPE.split("child:")[0].replace("  build_only: true\n", "")
    text += f"  run: |\n    #!/bin/busybox sh\n    PATH=/bin; cd /; {deep}\n"
    with pytest.raises(ArchiveError, match=r"base: the script left .* than 128 folders deep"):
        run_build(base, text)


def test_imports_can_be_put_in_place(base: Path) -> None:
    text = 'a:\n  from: {type: scratch}\n  import: [{path: hello, dest: /etc/, mode: "0600"}]\n'
    built, _ = run_build(base, text)
    tree, _ = image(base, built["a"])
    assert (tree / "etc/hello").stat().st_mode & 0o7777 == 0o600


def test_the_same_recipe_gives_the_same_digest(base: Path) -> None:
    text = RECIPE
    first, said = run_build(base, text)
    assert "child: running its script" in said
    again, said = run_build(base, text)
    assert [line for line in said if "unchanged" in line] == ["base: unchanged", "child: unchanged"]
    elsewhere, said = run_build(base, text, cache="other", out="out2")
    assert "child: running its script" in said
    assert first == again == elsewhere


SMALL = """\
base:
  build_only: true
  from: {type: tar, url: small.tar}
child:
  from: {type: built, tag: base}
  import: [{path: hello, dest: /etc/}]
  environment: {A: "1"}
"""


@pytest.mark.parametrize("change", ["import", "base", "environment", "epoch"])
def test_what_changed_is_built_again(base: Path, change: str) -> None:
    text = SMALL
    (base / "small.tar").write_bytes(member("f", b"1") + END)
    first, _ = run_build(base, text)
    epoch = EPOCH
    if change == "import":
        (base / "hello").write_text("ho ")
    elif change == "base":
        (base / "small.tar").write_bytes(member("f", b"2") + END)
    elif change == "environment":
        text = text.replace('"1"', '"2"')
    else:
        epoch += 1
    second, said = run_build(base, text, epoch=epoch)
    assert "child: unchanged" not in said
    assert second["child"].digest != first["child"].digest


@pytest.mark.parametrize(
    "source",
    [
        "{type: tar, url: '../out.tar'}",
        "{type: tar, url: link.tar}",
        "{type: oci, url: '../oci:t'}",
        "{type: docker, url: 'docker-archive:../out.tar'}",
        "{type: docker, url: 'oci-archive:link.tar:t'}",
    ],
)
def test_a_base_that_is_not_in_the_recipes_folder_is_not_read(base: Path, source: str) -> None:
    shutil.copy(base / "base.tar", base.parent / "out.tar")
    (base / "link.tar").symlink_to("../out.tar")
    opened: list[str] = []

    def open_image(url: str) -> tuple[Repository, str]:
        opened.append(url)
        return layout(base), "t"

    put(layout(base.parent / "oci"), folder("d/") + END)
    with pytest.raises(PolicyError, match="leads out of the recipe's folder") as caught:
        run_build(base, f"a: {{from: {source}}}\n", open_image=open_image)
    assert opened == []
    assert "--allow-folder" in caught.value.hint


def test_what_container_engines_hold_is_read_only_when_allowed(base: Path) -> None:
    opened: list[str] = []

    def open_image(url: str) -> tuple[Repository, str]:
        opened.append(url)
        return layout(base / "images"), "t"

    put(layout(base / "images"), member("f", b"1") + END, tag="t")
    text = "a: {from: {type: docker, url: 'docker-daemon:web:2'}}\n"
    with pytest.raises(PolicyError):
        run_build(base, text, open_image=open_image)
    assert opened == []
    run_build(base, text, open_image=open_image, allow_engines=True)
    assert opened == ["docker-daemon:web:2"]


def test_only_what_was_asked_for_is_built(base: Path) -> None:
    text = "a: {from: {type: scratch}}\nb: {from: {type: tar, url: none.tar}}\n"
    built, _ = run_build(base, text, stages=("a",))
    assert list(built) == ["a"]
    with pytest.raises(MissingError, match=r"import none\.tar does not exist"):
        run_build(base, text)
    with pytest.raises(DocumentError, match="c: is not a stage"):
        run_build(base, text, stages=("c",))


def test_a_failed_script_leaves_no_stage(base: Path) -> None:
    text = "a:\n  from: {type: tar, url: base.tar}\n  run: 'echo x > /made; exit 3'\n"
    with pytest.raises(ToolError, match=r"stacker\.yaml: a: the script ended with status 3"):
        run_build(base, text)
    assert list((base.parent / "cache").glob("stages-*/*")) == []
    assert not (base.parent / "out").exists()


def test_an_archive_is_vetted_and_its_checksum_checked(base: Path) -> None:
    (base / "bad.tar").write_bytes(symlink("a", "/etc") + member("a/../x", b"evil") + END)
    with pytest.raises(ArchiveError, match=r"bad\.tar: member 'a/\.\./x'"):
        run_build(base, "a: {from: {type: tar, url: bad.tar}}\n")
    text = f"a: {{from: {{type: tar, url: base.tar, hash: '{'1' * 64}'}}}}\n"
    with pytest.raises(DigestError, match=r"base\.tar: sha256 is \w+, the recipe says 1111"):
        run_build(base, text)


def test_an_import_with_another_mode_is_not_what_the_cache_has(base: Path) -> None:
    text = "a:\n  from: {type: scratch}\n  import: [{path: hello, dest: /bin/tool}]\n"
    for mode in (0o644, 0o755):
        (base / "hello").chmod(mode)
        built, said = run_build(base, text)
        tree, _ = image(base, built["a"])
        assert (tree / "bin/tool").stat().st_mode & 0o7777 == mode
        assert "a: unchanged" not in said


def test_what_changes_between_its_check_and_its_use_is_not_used(base: Path) -> None:
    """Opening the base stands for the minutes that it takes."""
    put(layout(base / "images"), member("f", b"1") + END, tag="v1")
    digest = hashlib.sha256((base / "hello").read_bytes()).hexdigest()

    def open_image(_url: str) -> tuple[Repository, str]:
        (base / "hello").write_text("evil")
        return layout(base / "images"), "v1"

    for more in ("", ", dest: /got"):
        (base / "hello").write_text("hi ")
        item = f"{{path: hello, hash: {digest}{more}}}"
        text = f"a:\n  from: {{type: docker, url: 'docker://h/n:v1'}}\n  import: [{item}]\n"
        with pytest.raises(DigestError, match="/hello changed while the recipe was built"):
            run_build(base, text, open_image=open_image)
        assert list((base.parent / "cache").glob("stages-*/*")) == []


def test_an_image_as_base_brings_its_configuration(base: Path) -> None:
    source = layout(base / "images")
    put(source, member("f", b"1") + END, tag="v1", config={"Cmd": ["x"], "Env": ["A=1", "B=2"]})
    text = "a:\n  from: {type: oci, url: 'images:v1'}\n  environment: {B: '3'}\n  labels: {l: m}\n"
    built, _ = run_build(base, text)
    tree, config = image(base, built["a"])
    assert (tree / "f").read_text() == "1"
    assert config["config"] == {"Cmd": ["x"], "Env": ["A=1", "B=3"], "Labels": {"l": "m"}}


def test_images_of_registries_come_through_the_caller(base: Path) -> None:
    source = layout(base / "images")
    put(source, member("f", b"1") + END, tag="v1")
    text = "a: {from: {type: docker, url: 'docker://host/name:v1', insecure: true}}\n"
    asked: list[str] = []

    def open_image(url: str) -> tuple[LayoutRepository, str]:
        asked.append(url)
        return source, "v1"

    built, said = run_build(base, text, open_image=open_image)
    assert [line for line in said if "--plain-http" in line]
    assert asked == ["docker://host/name:v1"]
    assert (image(base, built["a"])[0] / "f").exists()
    with pytest.raises(DocumentError, match=r"a\.from\.url"):
        run_build(base, text, cache="x")


# Built as others write it: the old name of an import, what the script is told, and its own
# environment, which the image does not get.
OLD = """\
old:
  from: {type: tar, url: base.tar}
  import: [hello, folder]
  build_env: {SECRET: s}
  environment: {OWN: o}
  run: |
    cat /stacker/hello /stacker/folder/f /stacker/imports/folder/f > /made
    echo " $STACKER_LAYER_NAME $SECRET $OWN" >> /made
"""


def test_old_recipes_find_their_imports_and_the_name_of_their_stage(base: Path) -> None:
    (base / "folder").mkdir()
    (base / "folder/f").write_text("f")
    built, _ = run_build(base, OLD)
    tree, config = image(base, built["old"])
    assert (tree / "made").read_text() == "hi ff old s o\n"
    assert config["config"]["Env"][1:] == ["OWN=o"]


# The way that bootkit's recipes go: stages of other files, each with imports beside its own, and
# an archive that another stage made.
APP = """\
config:
  prerequisites: [../recipe/stacker.yaml]
app:
  from: {type: tar, url: "stacker://made/export.tar"}
  import: {path: here, dest: /}
"""
PREREQUISITE = """\
made:
  build_only: true
  from: {type: scratch}
  import: {path: export.tar, dest: /}
unused:
  from: {type: tar, url: none.tar}
"""


def test_stages_of_prerequisites_are_built_on_demand_beside_their_own_recipe(base: Path) -> None:
    app = base.parent / "app"
    app.mkdir()
    (app / "here").write_text("app")
    (base / "stacker.yaml").write_text(PREREQUISITE)
    (base / "export.tar").write_bytes(member("f", b"exported") + END)
    built, _ = run_build(app, APP, allowed=(base,))
    assert list(built) == ["app"]
    tree, _ = image(app, built["app"])
    assert (tree / "f").read_text() == "exported"
    assert (tree / "here").read_text() == "app"


def test_a_layout_is_beside_the_recipe_that_names_it(base: Path) -> None:
    put(layout(base / "images"), member("f", b"1") + END, tag="v1")
    app = base.parent / "app"
    app.mkdir()
    (base / "stacker.yaml").write_text("b: {from: {type: docker, url: 'oci:images:v1'}}\n")
    text = "config: {prerequisites: [../recipe/stacker.yaml]}\na: {from: {type: built, tag: b}}\n"
    built, _ = run_build(app, text, allowed=(base,))
    assert sorted(built) == ["a", "b"]


def test_an_image_has_a_record_of_what_it_was_built_of(base: Path) -> None:
    built = run_build(base, RECIPE)[0]["child"]
    sink = LayoutRepository(base.parent / "out")
    record = read_inputs(sink, built.digest)
    assert [(item.stage, item.kind, item.name) for item in record.inputs] == [
        ("base", "script", "base"),
        ("base", "tar", "base.tar"),
        ("child", "import", "hello"),
        ("child", "script", "child"),
    ]
    tar = Digest.of((base / "base.tar").read_bytes())
    assert record.inputs[1].digest == tar
    assert record.packages == ()
    again = run_build(base, RECIPE, cache="other", out="elsewhere")[0]["child"]
    assert again == built
    assert read_inputs(LayoutRepository(base.parent / "elsewhere"), built.digest) == record
