from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machineos.build.recipe.recipe import Recipe, parse_recipe
from machineos.build.recipe.stage import (
    BuiltBase,
    DebianBase,
    ImageBase,
    Import,
    ScratchBase,
    TarBase,
)
from machineos.build.recipe.substitution import substitute
from machineos.errors import DocumentError

if TYPE_CHECKING:
    pass

# The recipe of seed 002, its first script shortened; the rest is as printed there.
SEED = """\
install-base:
  build_only: true
  from:
    type: docker
    url: "docker://zothub.io/machine/bootkit/rootfs:${{ROOTFS_VERSION}}-squashfs"

install-rootfs-pkg:
  build_only: true
  from:
    type: built
    tag: install-base
  run: |
    #!/bin/sh -ex
    pkgtool install \\
        cryptsetup

    writefile() {
      mkdir -p "${1%/*}"
      echo "write $1" 1>&2
      cat >"$1"
    }

    writefile /etc/systemd/network/20-wire-enp0s-dhcp.network <<"END"
    [Match]
    Name=enp0s*
    [Network]
    DHCP=yes
    END
demo-zot:
  from:
    type: built
    tag: install-rootfs-pkg
  import:
    - zot-config.json
    - start-zot
    - https://github.com/project-zot/zot/releases/download/v${{ZOT_VERSION}}/zot-linux-amd64-minimal
  entrypoint: /usr/bin/start-zot
  run: |
    #!/bin/sh -ex
    cp /stacker/imports/zot-config.json /etc/
"""
VALUES = {"ROOTFS_VERSION": "v0.0.19.231225", "ZOT_VERSION": "2.0.0-rc5"}


def parse(text: str, **values: str) -> Recipe:
    return parse_recipe(text.encode(), name="stacker.yaml", substitutions=values)


def faults(text: str, **values: str) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        parse(text, **values)
    return [str(fault) for fault in caught.value.faults]


def test_the_recipe_of_the_seed_parses() -> None:
    base, package, zot = parse(SEED, **VALUES).stages
    assert base.base == ImageBase(
        "docker", "docker://zothub.io/machine/bootkit/rootfs:v0.0.19.231225-squashfs"
    )
    assert (base.build_only, package.build_only, zot.build_only) == (True, True, False)
    assert package.base == BuiltBase("install-base")
    assert package.run.startswith("#!/bin/sh -ex\npkgtool install \\\n    cryptsetup\n")
    assert package.run.endswith("DHCP=yes\nEND\n")
    assert [item.name for item in zot.imports] == [
        "zot-config.json",
        "start-zot",
        "zot-linux-amd64-minimal",
    ]
    assert "/v2.0.0-rc5/" in zot.imports[2].path
    assert zot.entrypoint == ("/usr/bin/start-zot",)
    assert zot.cmd is None


def test_every_key_is_read() -> None:
    (stage,) = parse(
        """
a:
  from: {type: scratch}
  import:
    - {path: f, hash: sha256:%s, dest: /etc/, mode: "0600", uid: 1, gid: 2}
  run: [one, two]
  network: none
  entrypoint: [/bin/a, "b c"]
  cmd: d 'e f' "g"
  environment: {A: 1.10, B: "no"}
  working_dir: /srv
  runtime_user: www
  labels: {l: x}
  volumes: [/data]
  annotations: {n: y}
"""
        % ("AB" * 32)
    ).stages
    assert stage.base == ScratchBase()
    assert stage.imports == (Import("f", "ab" * 32, "/etc/", 0o600, 1, 2),)
    assert (stage.run, stage.network) == ("one\ntwo", "none")
    assert stage.entrypoint == ("/bin/a", "b c")
    assert stage.cmd == ("d", "e f", "g")
    assert stage.environment == (("A", "1.10"), ("B", "no"))
    assert (stage.working_dir, stage.user, stage.volumes) == ("/srv", "www", ("/data",))
    assert (stage.labels, stage.annotations) == ((("l", "x"),), (("n", "y"),))


def test_debian_and_tar_bases() -> None:
    debian, tar = parse(
        "a: {from: {type: debian, suite: trixie, packages: [busybox, g++], variant: extract}}\n"
        f"b: {{from: {{type: tar, url: root.tar.gz, sha256: {'0' * 64}}}}}\n"
    ).stages
    assert debian.base == DebianBase("trixie", ("busybox", "g++"), "extract")
    assert tar.base == TarBase("root.tar.gz", "0" * 64)


def test_stages_come_after_all_they_need() -> None:
    recipe = parse(
        "c: {from: {type: built, tag: b}}\n"
        "b: {from: {type: scratch}, import: stacker://a/x}\n"
        "a: {from: {type: scratch}}\n"
        "d: {from: {type: scratch}}\n"
    )
    assert [stage.name for stage in recipe.stages] == ["a", "b", "c", "d"]
    assert [stage.name for stage in recipe.closure(("b",))] == ["a", "b"]
    with pytest.raises(DocumentError, match=r"nope: is not a stage \(stages: a, b, c, d\)"):
        recipe.closure(("nope", "a"))


def test_all_faults_come_at_once_with_path_and_line() -> None:
    found = faults(
        """\
a:
  from: {type: built, tag: b}
b:
  from: {type: built, tag: a}
  foo: 1
c.d:
  from: {type: built, tag: zz, url: x}
  entrypoint: "a 'b"
  import: [x/y, z/y, {path: q, mode: "99", hash: abc}]
-e: {from: {type: tar}}
f: {from: {type: nope}}
g: {from: {type: debian, suite: Trixie, packages: [a_b, x, x], snapshot: "2025"}}
h: {from: {type: docker, url: "host/x"}, working_dir: rel, environment: {"A=B": c}}
i: {from: {type: scratch}, import: ["http://x/y", "stacker://a/../y", /]}
"""
    )
    assert [fault.partition(" (known:")[0] for fault in found] == [
        "line 2: a.from.tag: goes in a circle: a -> b -> a",
        "line 4: b.from.tag: goes in a circle: b -> a -> b",
        "line 5: b.foo: is not a known key",
        "line 7: c.d.from.url: does not belong to type built",
        "line 7: c.d.from.tag: 'zz' is not a stage of this recipe",
        "line 8: c.d.entrypoint: cannot be split into words: no closing quotation",
        "line 9: c.d.import[1]: two imports are named 'y': give one a 'dest'",
        "line 9: c.d.import[2].hash: 'abc' is not a sha256 in hex",
        "line 9: c.d.import[2].mode: '99' is not a mode (four octal digits)",
        "line 10: -e: is not a stage name: letters, digits, '.', '_' and '-', at most 128",
        "line 10: -e.from.url: is missing, type tar needs it",
        "line 11: f.from.type: 'nope' is not one of: docker, oci, tar, scratch, built, debian",
        "line 12: g.from.suite: 'Trixie' is not a Debian suite",
        "line 12: g.from.packages[0]: 'a_b' is not a Debian package",
        "line 12: g.from.packages[2]: x is given twice",
        "line 12: g.from.snapshot: needs a mirror that keeps archives by date",
        "line 13: h.from.url: 'host/x' does not start with docker://, oci:, oci-archive:, "
        "docker-archive:, docker-daemon:, containers-storage:",
        "line 13: h.environment.A=B: is not the name of a variable",
        "line 13: h.working_dir: 'rel' is not an absolute path",
        "line 14: i.import[0]: 'http://x/y' can be changed on its way: write https://",
        "line 14: i.import[1]: 'stacker://a/../y' is not a path",
        "line 14: i.import[1]: two imports are named 'y': give one a 'dest'",
        "line 14: i.import[2]: '/' does not end in a file name",
    ]


def test_a_stage_cannot_be_given_twice() -> None:
    stage = "a: {from: {type: scratch}}\n"
    assert faults(stage + stage) == ["line 2: a: is given twice"]


def test_keys_that_say_the_same_are_refused_together() -> None:
    text = "a: {from: {type: scratch}, import: [x], imports: [y], user: a, runtime_user: b}\n"
    assert len([fault for fault in faults(text) if "says the same as" in fault]) == 2


def test_options_of_mmdebstrap_cannot_be_smuggled_in() -> None:
    for value in ("--help", "a b", "a;b", "$(x)", "a,b"):
        text = f"a: {{from: {{type: debian, suite: trixie, packages: ['{value}']}}}}\n"
        assert "is not a Debian package" in faults(text)[0]


def test_variables_without_a_value_are_named_with_their_line() -> None:
    assert faults(SEED) == [
        "line 5: ROOTFS_VERSION: has no value; give one with --substitute",
        "line 36: ZOT_VERSION: has no value; give one with --substitute",
    ]


def test_substitution() -> None:
    text = "a${{X}}b ${{Y:def:1}} ${{Z:}} $X ${X} ${{X}}"
    assert substitute(text, {"X": "1"}, name="n") == "a1b def:1  $X ${X} 1"
    assert substitute("${{X:no}}", {"X": "${{X}}"}, name="n") == "${{X}}"
    for bad in ("${{}}", "${{a-b}}", "${{1:x}}"):
        with pytest.raises(DocumentError, match="is not a variable name"):
            substitute(bad, {}, name="n")
    with pytest.raises(DocumentError, match="X: its value holds a line break"):
        substitute("${{X}}", {"X": "a\nb: c"}, name="n")


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_a_recipe_or_a_document_error(text: str) -> None:
    try:
        parse(f"a: {{from: {{type: scratch}}}}\n{text}")
    except DocumentError as error:
        assert error.faults
