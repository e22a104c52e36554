"""Keys, configurations and checks of a stage, from values alone."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from changed import replace
from machineos.build.recipe import stageplan
from machineos.build.recipe.config import ImageConfig
from machineos.build.recipe.stage import Import, ScratchBase, Stage
from machineos.build.recipe.stageplan import LayerMeta
from machineos.build.recipe.veritylayer import VerityLayer, salt_and_uuid
from machineos.core.digest import Digest
from machineos.core.word import RootHash
from machineos.errors import DigestError, DocumentError, PolicyError

STAGE = Stage("web", ScratchBase(), run="make", environment=(("A", "1"),))
BASE = ImageConfig(
    architecture="amd64",
    run={"Entrypoint": ["/e"], "Cmd": ["c"], "Env": ["P=x", "A=0"], "Labels": {"l": "0"}},
)


def key(stage: Stage = STAGE, base: str = "scratch", *digests: str, epoch: int = 7) -> str:
    return stageplan.stage_key(stage, base, digests, epoch=epoch)


def test_the_key_changes_with_all_that_decides_the_content() -> None:
    found = {
        key(),
        key(STAGE, "built x"),
        key(STAGE, "scratch", "d"),
        key(STAGE, "scratch", "d", "e"),
        key(epoch=8),
        key(replace(STAGE, run="make all")),
        key(replace(STAGE, user="u")),
        key(replace(STAGE, imports=(Import("f"),))),
    }
    assert len(found) == 8
    assert all(len(one) == 64 for one in found)


def test_the_key_is_the_same_whatever_the_stage_is_called_and_wherever_it_is() -> None:
    stage = replace(STAGE, run="")
    other = replace(stage, name="x", folder="../y", build_only=True, annotations=(("a", "b"),))
    assert key(other) == key(stage)
    assert "name" not in stageplan.content_of(stage)


def test_a_script_is_told_the_name_of_its_stage_so_the_key_has_it() -> None:
    stage = replace(STAGE, build_environment=(("A", "2"), ("Q", "r")))
    assert stageplan.script_environment(stage, BASE) == {
        "P": "x",
        "A": "2",
        "Q": "r",
        "STACKER_LAYER_NAME": "web",
    }
    assert stageplan.configure(stage, BASE).environment == {"P": "x", "A": "1"}
    assert key(replace(STAGE, name="x")) != key()


def test_a_stage_for_another_architecture_is_not_built() -> None:
    stages = (replace(STAGE, architecture="amd64"), STAGE)
    stageplan.check_machine(stages, "amd64", recipe="r")
    with pytest.raises(DocumentError, match=r"web\.arch: 'amd64' is not built on this arm64"):
        stageplan.check_machine(stages, "arm64", recipe="r")


def test_a_key_of_this_release_stays() -> None:
    """Who changes it makes every cache worthless: raise the format on purpose."""
    assert key() == "ba11cc728c10c129c8372d203b3bc1b7a27e9fd74432a1fdacdf74763fb93cd9"


def test_an_image_from_nothing_has_a_path_and_no_more() -> None:
    config = stageplan.new_config("aarch64")
    assert config.architecture == "arm64"
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert config.run == {"Env": [path]}


def test_a_stage_without_keys_keeps_those_of_its_base() -> None:
    assert stageplan.configure(Stage("a", ScratchBase()), BASE) == BASE
    bare = ImageConfig(architecture="amd64")
    assert stageplan.configure(Stage("a", ScratchBase()), bare).run == {}


def test_a_new_entry_point_does_not_get_the_old_arguments() -> None:
    run = stageplan.configure(replace(STAGE, entrypoint=("/new",)), BASE).run
    assert run["Entrypoint"] == ["/new"]
    assert "Cmd" not in run
    both = stageplan.configure(replace(STAGE, entrypoint=(), cmd=("x", "y")), BASE).run
    assert (both["Entrypoint"], both["Cmd"]) == ([], ["x", "y"])


def test_the_stages_own_keys_win() -> None:
    stage = replace(
        STAGE, working_dir="/w", user="u", labels=(("l", "1"), ("m", "2")), volumes=("/v",)
    )
    base = replace_run(BASE, Volumes={"/o": {}})
    assert stageplan.configure(stage, base).run == {
        "Entrypoint": ["/e"],
        "Cmd": ["c"],
        "Env": ["P=x", "A=1"],
        "WorkingDir": "/w",
        "User": "u",
        "Labels": {"l": "1", "m": "2"},
        "Volumes": {"/o": {}, "/v": {}},
    }
    assert base.run["Env"] == ["P=x", "A=0"]


def replace_run(config: ImageConfig, **more: object) -> ImageConfig:
    return ImageConfig(architecture=config.architecture, run={**config.run, **more})


def test_a_layer_is_remembered_without_its_place() -> None:
    layer = VerityLayer(Path("/a"), 12, Digest.of(b"x"), RootHash("ab" * 32), "m/t", 8)
    remembered = msgspec.json.encode(LayerMeta.of(layer))
    again = msgspec.json.decode(remembered, type=LayerMeta).layer(Path("/b"))
    assert again == VerityLayer(Path("/b"), 12, Digest.of(b"x"), RootHash("ab" * 32), "m/t", 8)


def test_salt_and_uuid_come_from_the_data() -> None:
    salt, uuid = salt_and_uuid("0123456789abcdef" * 4)
    assert salt == "0123456789abcdef" * 4
    assert uuid == "01234567-89ab-4def-8123-456789abcdef"


def test_an_image_in_a_layout() -> None:
    def parse(url: str) -> tuple[str, str]:
        return stageplan.layout_image(url, recipe="r.yaml", stage="web")

    assert parse("dir:tag") == ("dir", "tag")
    assert parse("a/b:tag") == ("a/b", "tag")
    for url in ("dir", ":tag", ""):
        with pytest.raises(DocumentError) as caught:
            parse(url)
        (fault,) = caught.value.faults
        assert fault.path == "web.from.url"
        assert fault.message == f"{url!r} is not DIR:TAG"


def test_a_download_is_pinned_or_allowed_not_to_be() -> None:
    def check(wanted: str, found: str, *, allowed: bool = False) -> None:
        stageplan.check_download("https://h/f", wanted, found, allow_unpinned=allowed)

    check("a", "a")
    check("", "a", allowed=True)
    for allowed in (True, False):
        with pytest.raises(DigestError) as wrong:
            check("b", "a", allowed=allowed)
        assert wrong.value.message == "https://h/f: sha256 is a, the recipe says b"
    with pytest.raises(PolicyError) as unpinned:
        check("", "a")
    assert unpinned.value.message == (
        "https://h/f: the recipe gives no checksum; what came now has the sha256 a"
    )
    assert unpinned.value.hint == (
        "write it as {path: https://h/f, hash: a}, or build with --allow-unpinned"
    )


def test_an_import_has_its_checksum_when_one_is_given() -> None:
    stageplan.check_import("f", "", "a")
    stageplan.check_import("f", "a", "a")
    with pytest.raises(DigestError) as caught:
        stageplan.check_import("f", "b", "a")
    assert caught.value.message == "import f: sha256 is a, the recipe says b"


def test_times_end_with_2025_unless_said() -> None:
    assert datetime.fromtimestamp(stageplan.DEFAULT_EPOCH, UTC) == datetime(2026, 1, 1, tzinfo=UTC)


def test_files_of_archives_are_beside_the_recipe() -> None:
    base = Path("/r")
    for url, seen in {
        "docker://host/name:v1": "docker://host/name:v1",
        "docker-archive:a.tar:web:2": "docker-archive:/r/a.tar:web:2",
        "oci-archive:/b/a.tar": "oci-archive:/b/a.tar",
        "docker-daemon:web:2": "docker-daemon:web:2",
    }.items():
        assert stageplan.image_url(url, lambda path: base / path, allow_engines=True) == seen
    with pytest.raises(DocumentError):
        stageplan.image_url("docker-archive:", Path, allow_engines=True)


@pytest.mark.parametrize("url", ["docker-daemon:secret:1", "containers-storage:secret"])
def test_what_engines_hold_is_not_a_strangers_to_send_away(url: str) -> None:
    with pytest.raises(PolicyError, match=f"^{url} is an image of this machine's") as caught:
        stageplan.image_url(url, Path, allow_engines=False)
    assert caught.value.hint == "if the recipe may read what they hold: --allow-engines"
    for other in ("docker://host/name:v1", "docker-archive:a.tar"):
        assert stageplan.image_url(other, Path, allow_engines=False) == other
