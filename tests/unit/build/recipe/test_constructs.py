"""Everything that recipes of stacker's users say: taken, or refused with what to write instead.

The texts are our own, one for each construct that was met in 190 public recipes.
"""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machineos.build.recipe.grammar import (
    BASE_KEYS,
    INSTEAD_IN_IMPORT,
    INSTEAD_IN_STAGE,
    From,
    ImportItem,
    StageItem,
)
from machineos.build.recipe.recipe import parse_recipe
from machineos.build.recipe.stage import ImageBase, Import, Stage, TarBase
from machineos.errors import DocumentError

S = "from: {type: scratch}"
SUM = "0" * 64

TAKEN = {
    "an image of a registry": "a: {from: {type: docker, url: 'docker://h/x:1'}}",
    "a registry without TLS": "a: {from: {type: docker, url: 'docker://h/x', insecure: true}}",
    "a layout": "a: {from: {type: oci, url: 'dir:x'}}",
    "a layout, as type docker": "a: {from: {type: docker, url: 'oci:dir:x'}}",
    "a registry, as type oci": "a: {from: {type: oci, url: 'docker://h/x'}}",
    "an archive of a layout": "a: {from: {type: oci, url: 'oci-archive:x.tar:1'}}",
    "what docker saved": "a: {from: {type: docker, url: 'docker-archive:x.tar'}}",
    "what docker holds": "a: {from: {type: docker, url: 'docker-daemon:x:1'}}",
    "what podman holds": "a: {from: {type: docker, url: 'containers-storage:x:1'}}",
    "an archive": f"a: {{from: {{type: tar, url: x.tar, hash: {SUM}}}}}",
    "an archive's checksum": f"a: {{from: {{type: tar, url: x.tar, sha256: {SUM}}}}}",
    "an archive of a stage": (
        f"a: {{{S}, build_only: true}}\nb: {{from: {{type: tar, url: 'stacker://a/x.tar'}}}}"
    ),
    "a stage": f"a: {{{S}}}\nb: {{from: {{type: built, tag: a}}}}",
    "Debian": (
        "a: {from: {type: debian, suite: trixie, packages: [p], variant: extract, "
        "mirror: 'https://m', snapshot: '2025'}}"
    ),
    "linux on amd64": f"a: {{{S}, os: linux, arch: amd64}}",
    "one import": f"a: {{{S}, import: x}}",
    "one import, a mapping": f"a: {{{S}, import: {{path: x, dest: /y}}}}",
    "no import": f"a: {{{S}, import: , imports: []}}",
    "imports": (
        f"a: {{{S}, imports: [x, {{path: y, hash: {SUM}, dest: /, mode: 0755, uid: 1, gid: 2}}, "
        f"{{path: 'https://h/z', sha256: {SUM}}}]}}"
    ),
    "equal names with dest": (
        f"a: {{{S}, imports: [{{path: a/c, dest: /a}}, {{path: b/c, dest: /b}}, c]}}"
    ),
    "the contents of a folder": f"a: {{{S}, imports: {{path: ./, dest: /}}}}",
    "a script": f"a:\n  {S}\n  network: none\n  run: |\n    #!/bin/sh\n    true\n",
    "a list of commands": f"a: {{{S}, run: [one, two], build_env: {{A: b}}}}",
    "a whole command": f"a: {{{S}, full_command: /bin/x 'a b'}}",
    "what goes into the image": (
        f"a: {{{S}, entrypoint: [x], cmd: y z, environment: {{A: b}}, working_dir: /w, "
        "runtime_user: 1000, labels: {l: m}, volumes: [/v], annotations: {n: o}}"
    ),
    "our word for the user": f"a: {{{S}, user: www}}",
    "a value with a default": f"'${{{{NAME:a}}}}': {{{S}}}",
    "a default with a value": f"a: {{{S}, cmd: '${{{{A:oci:${{{{B:b}}}}:x}}}}'}}",
    "keys without a value": f"a: {{{S}, binds: , bom: , build_env_passthrough: []}}",
    "an empty configuration": f"config: {{prerequisites: }}\na: {{{S}}}",
}

INSTEAD = {
    "apply": (f"a: {{{S}, apply: [x]}}", "from: {type: built}"),
    "binds": (f"a: {{{S}, binds: [../. -> /src]}}", "imports: [{path: FOLDER/, dest: /WHERE/}]"),
    "bom": (f"a: {{{S}, bom: {{generate: true}}}}", "take it out"),
    "build_env_passthrough": (
        f"a: {{{S}, build_env_passthrough: ['.*']}}",
        "--substitute NAME=VALUE",
    ),
    "generate_labels": (f"a: {{{S}, generate_labels: x}}", "write them under 'labels'"),
    "overlay_dirs": (
        f"a: {{{S}, overlay_dirs: [{{source: x, dest: /}}]}}",
        "imports': {path: SOURCE/, dest: DEST/}",
    ),
    "perms": (f"a: {{{S}, imports: [{{path: x, perms: 0777}}]}}", "is called 'mode'"),
    "source": (f"a: {{{S}, import: {{source: x}}}}", "is called 'path'"),
    "another system": (f"a: {{{S}, os: darwin}}", "'darwin' is not one of: linux"),
    "no system": (f"a: {{{S}, os: }}", "'' is not one of: linux"),
    "another machine": (f"a: {{{S}, arch: arm64}}", "'arm64' is not one of: amd64"),
    "another key": (f"a: {{{S}, runs: x}}", "known: annotations, arch, build_env"),
    "no base": ("a: {run: x}", "a.from: is missing"),
    "a stage called config": (f"config: {{{S}}}", "give the stage another name"),
    "a colon": (f"'a:b': {{{S}}}", "is not a stage name: letters, digits"),
    "an import in the clear": (f"a: {{{S}, imports: ['http://h/x']}}", "write https://"),
    "equal names": (f"a: {{{S}, imports: [a/c, b/c]}}", "give one a 'dest'"),
    "two commands": (f"a: {{{S}, full_command: x, cmd: y}}", "give one of them"),
    "a stage that is not there": (f"a: {{{S}, import: 'stacker://b/x'}}", "is not a stage"),
    "no stage": (f"a: {{{S}, import: 'stacker:///x'}}", "is not a path"),
    "no transport": ("a: {from: {type: docker, url: h/x}}", "docker://, oci:"),
    "a tab": ("a:\n\tfrom: x", "indent with spaces"),
    "a sign that YAML keeps": ("a: @x", "put the value in quotes"),
    "a prerequisite of the web": ("config: {prerequisites: ['https://h/x']}", "is not the path"),
    "a NUL": (f'a: {{{S}, build_env: {{A: "\\0"}}}}', "has a NUL in its value"),
}


def stages(text: str) -> tuple[Stage, ...]:
    return parse_recipe(text.encode(), name="r", substitutions={}).stages


@pytest.mark.parametrize("text", TAKEN.values(), ids=TAKEN)
def test_it_is_taken(text: str) -> None:
    assert stages(text)


@pytest.mark.parametrize(("text", "hint"), INSTEAD.values(), ids=INSTEAD)
def test_it_is_refused_with_what_to_write_instead(text: str, hint: str) -> None:
    with pytest.raises(DocumentError) as caught:
        stages(text)
    assert [fault for fault in caught.value.faults if hint in str(fault) and fault.line > 0]


def test_no_key_is_left_out() -> None:
    taken = "\n".join(TAKEN.values())
    for model in (From, ImportItem, StageItem):
        for field in msgspec.structs.fields(model):
            assert f"{field.encode_name}:" in taken
    assert {f"type: {kind}" for kind in BASE_KEYS if f"type: {kind}" not in taken} == set()
    assert {*INSTEAD_IN_STAGE, *INSTEAD_IN_IMPORT} <= INSTEAD.keys()


def test_the_address_says_what_an_image_is() -> None:
    bases = [
        stages(TAKEN[name])[0].base
        for name in (
            "a registry without TLS",
            "a layout",
            "a layout, as type docker",
            "a registry, as type oci",
        )
    ]
    assert bases == [
        ImageBase("docker", "docker://h/x", insecure=True),
        ImageBase("oci", "dir:x"),
        ImageBase("oci", "dir:x"),
        ImageBase("docker", "docker://h/x"),
    ]


def test_a_stage_comes_after_the_one_whose_archive_it_is() -> None:
    first, second = stages(
        "b: {from: {type: tar, url: 'stacker://a/x.tar'}}\na: {from: {type: scratch}}"
    )
    assert (first.name, second.base) == ("a", TarBase("stacker://a/x.tar"))
    with pytest.raises(DocumentError, match=r"b\.from\.url: goes in a circle: b -> b"):
        stages("b: {from: {type: tar, url: 'stacker://b/x.tar'}}")


def test_one_mapping_is_a_list_of_one() -> None:
    (stage,) = stages(TAKEN["one import, a mapping"])
    assert stage.imports == (Import("x", dest="/y"),)


def test_a_whole_command_is_an_entry_point_and_no_arguments() -> None:
    (stage,) = stages(TAKEN["a whole command"])
    assert (stage.entrypoint, stage.cmd) == (("/bin/x", "a b"), None)


def test_the_environment_of_the_script_is_not_the_image_s() -> None:
    (stage,) = stages(TAKEN["a list of commands"])
    assert (stage.build_environment, stage.environment) == ((("A", "b"),), ())


def test_the_machine_that_a_recipe_names() -> None:
    assert stages(TAKEN["linux on amd64"])[0].architecture == "amd64"
    assert stages(TAKEN["a script"])[0].architecture == ""


# Any shape under keys that mean something: JSON is YAML.
_KEYS = [
    *(field.encode_name for model in (From, ImportItem, StageItem)
      for field in msgspec.structs.fields(model)),
    *INSTEAD_IN_STAGE,
    "config",
    "prerequisites",
]  # fmt: skip
_VALUES = st.recursive(
    st.sampled_from(["", "scratch", "built", "a", "stacker://a/x", "/x/", "oci:x", "'"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b", "config"]), _VALUES))
def test_any_shape_is_a_recipe_or_a_document_error(shape: object) -> None:
    try:
        stages(json.dumps(shape))
    except DocumentError as error:
        assert error.faults
