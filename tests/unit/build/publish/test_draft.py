"""A first manifest.yaml: what images say becomes one that passes, whatever they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.build.publish.draft import Draft, Found, draft
from machineos.build.publish.source import Source, parse_source
from machineos.build.recipe.config import ImageConfig
from machineos.errors import DocumentError
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.reference import ImageSource
from unit.document.conftest import World, put_image

WEB = "docker://registry.example/team/web:1.2"


def found(text: str = WEB, **run: Any) -> Found:  # noqa: ANN401
    run.setdefault("Cmd", ["/run"])
    config = ImageConfig(architecture="amd64", run=run)
    return Found(text, ImageSource.parse(text), config)


def drafted(*images: Found) -> tuple[Draft, Source]:
    made = draft("demo", images)
    return made, parse_source(made.text.encode())


def test_what_an_image_asks_for_is_in_the_manifest() -> None:
    made, source = drafted(
        found(
            ExposedPorts={"80/tcp": {}, "53/udp": {}, "9000-9001": {}},
            Volumes={"/var/lib/web": {}, "/cache/": {}},
            User="www:www",
            Entrypoint=["/bin/web", "--serve"],
            StopSignal="SIGQUIT",
            Env=["PATH=/bin", "MODE=fast", "TOKEN=secret"],
        )
    )
    target = source.targets[0]
    assert (target.service_name, target.version, target.service_type) == ("web", "1.2", "container")
    assert str(target.source) == WEB
    ports = [(port.host, port.container, port.protocol) for port in target.network.ports or ()]
    assert target.network.type == "simple"
    assert ports == [
        (53, 53, "udp"), (80, 80, "tcp"), (9000, 9000, "tcp"), (9001, 9001, "tcp"),
    ]  # fmt: skip
    assert [(one.label, one.dest) for one in target.storage] == [
        ("web-cache", "/cache"),
        ("web-web", "/var/lib/web"),
    ]
    assert [(one.label, one.persistent, one.nsgroup, one.size) for one in source.storage] == [
        ("web-cache", True, "web", 1024),
        ("web-web", True, "web", 1024),
    ]
    assert '# It runs ["/bin/web", "--serve", "/run"] as www:www.' in made.text
    assert "# It is ended by SIGQUIT." in made.text
    assert "# Its environment has MODE, TOKEN." in made.text
    assert "secret" not in made.text
    assert made.notes == ()


def test_two_images_become_two_targets_that_share_nothing() -> None:
    one = found(ExposedPorts={"80": {}}, Volumes={"/data": {}})
    two = found("oci:oci:web", ExposedPorts={"80": {}}, Volumes={"/data": {}})
    made, source = drafted(one, two)
    assert [target.service_name for target in source.targets] == ["web", "web-2"]
    assert [port.host for target in source.targets for port in target.network.ports or ()] == [
        80,
        81,
    ]
    assert [item.label for item in source.storage] == ["web-data", "web-2-data"]
    assert made.notes == ("web-2: port 80/tcp is taken, on the machine it is 81",)
    assert [target.version for target in source.targets] == ["1.2", "0.1.0"]
    assert made.text.count("# ? The image says no version.") == 1


def test_an_image_without_a_command_is_not_run() -> None:
    made, source = drafted(found(Cmd=None, ExposedPorts={"80": {}}, Volumes={"/data": {}}))
    assert source.targets[0].service_type == "fs-only"
    assert made.notes == ("web: the image has nothing to run, so it is fs-only",)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("oci:oci:Web_App", "web_app"),
        ("oci:oci:registry.example/team/web:1.2", "web"),
        ("docker-archive:some/Saved.tar", "saved"),
        ("docker-archive:some/saved.tar:team/web:1", "web"),
        ("docker-archive:some/saved.tar:@0", "saved"),
        ("docker-daemon:team/web:1", "web"),
        ("oci:some/Folder:latest", "folder"),
        (f"oci:x@sha256:{'0' * 64}", "x"),
        ("docker://registry.example/a/modules", "modules-service"),
        ("docker://registry.example/none:1", "none-service"),
        ("oci:oci:hostfs", "hostfs"),
        ("oci:oci:bootkit", "bootkit"),
    ],
)
def test_names(text: str, name: str) -> None:
    assert drafted(found(text))[1].targets[0].service_name == name


def test_what_cannot_be_is_left_out_and_said() -> None:
    made, source = drafted(
        found(
            ExposedPorts={"0": {}, "99999/tcp": {}, "7/sctp": {}, "http\n#": {}, "5": {}},
            Volumes={
                "/": {},
                "/proc/x": {},
                "rel": {},
                "/a b": {},
                "/d": {},
                "/d/e": {},
                "/d/": {},
            },
        )
    )
    target = source.targets[0]
    assert [port.container for port in target.network.ports or ()] == [5]
    assert [mount.dest for mount in target.storage] == ["/d"]
    assert len(made.notes) == 10
    assert all("\n" not in note for note in made.notes)


def test_labels_keep_away_from_those_of_the_machine() -> None:
    _, source = drafted(found("oci:x:snapshot", Volumes={"/pool": {}, "/a_tdata": {}}))
    assert [item.label for item in source.storage] == ["v-snapshot-a-tdata", "v-snapshot-pool"]


def test_a_product_that_cannot_be_called_so() -> None:
    with pytest.raises(DocumentError, match="product"):
        draft("a\nb: c", [found()])


texts = st.text(max_size=40) | st.sampled_from(["80/tcp", "1-65535", "/data", "/a/b", "8080", "/A"])
runs: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "ExposedPorts": st.none() | st.dictionaries(texts, st.just({}), max_size=5),
        "Volumes": st.none() | st.dictionaries(texts, st.just({}), max_size=5),
        "User": texts,
        "StopSignal": texts,
        "Entrypoint": st.none() | st.lists(texts, max_size=3),
        "Cmd": st.none() | st.lists(texts, max_size=3),
        "Env": st.none() | st.lists(texts, max_size=3),
        "Labels": st.dictionaries(
            st.just("org.opencontainers.image.version") | texts, texts, max_size=3
        ),
    },
)
sources = st.sampled_from([WEB, "oci:x:web", "oci:x:hostfs", "oci:x:none", "oci:x:modules"])


@given(st.lists(st.tuples(sources, runs), min_size=1, max_size=3))
def test_whatever_images_say_the_manifest_passes(images: list[tuple[str, dict[str, Any]]]) -> None:
    seen = [
        Found(text, ImageSource.parse(text), ImageConfig(architecture="amd64", run=run))
        for text, run in images
    ]
    names = [target.service_name for target in parse_source(draft("x", seen).text.encode()).targets]
    assert len(set(names)) == len(images)


def test_much_is_bounded() -> None:
    many: dict[str, Any] = {f"{number}": {} for number in range(1, 5000)}
    folders: dict[str, Any] = {f"/v{number}": {} for number in range(5000)}
    made, source = drafted(found(ExposedPorts=many | {"1-65535": {}}, Volumes=folders))
    assert len(source.targets[0].network.ports or ()) == 32
    assert len(source.storage) == 32
    assert len(made.notes) < 5


RUNS: list[dict[str, Any]] = [
    {},
    {"ExposedPorts": {"80/tcp": {}}, "Volumes": {"/data": {}, "/etc/app": {}}},
    {"Entrypoint": ["/run"], "User": "7:7", "Env": ["A=b"], "StopSignal": "SIGINT"},
    {"ExposedPorts": None, "Volumes": None, "Env": None},
]


def test_what_is_drafted_can_be_published(world: World) -> None:
    repository = LayoutRepository(world.images, writable=True)
    images = []
    for number, run in enumerate(RUNS):
        put_image(repository, f"app{number}", run=run)
        images.append(found(f"oci:{world.images}:app{number}", **run))
    made = draft("default", images)
    install = world.publish(made.text).verified.install
    names = [target.service_name for target in install.targets]
    assert names == ["app0", "app1", "app2", "app3", "hostfs", "bootkit"]
    assert [item.label for item in install.storage or ()] == ["app1-data", "app1-app"]
    assert Path(world.images).is_dir()
