"""Archives of images: which image, from which bytes, and what is not believed of them."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fakes.archive import pack
from machineos.build.foreign.archives import open_docker, open_oci
from machineos.build.foreign.choosing import docker_name
from machineos.build.foreign.members import MAX_MEMBERS, index_members, inside
from machineos.build.foreign.repository import ArchiveRepository
from machineos.core.digest import Digest
from machineos.core.run import run
from machineos.errors import (
    ArchiveError,
    DigestError,
    DocumentError,
    MachineOSError,
    MissingError,
    UsageError,
)
from machineos.oci.model.documents import (
    DOCKER_MANIFEST,
    Descriptor,
    Manifest,
    parse_manifest,
)
from machineos.oci.model.repository import Ranges
from machineos.oci.registry import hub
from unit.build.images import layout, put, put_index
from unit.build.tarmaker import END, folder, hardlink, header, member, symlink
from waiting import PATIENCE

HUB = hub.NAMES[0]
LAYERS = (member("a", b"one") + END, member("b", b"two") + END)


def config(*layers: bytes) -> bytes:
    diff_ids = [str(Digest.of(layer)) for layer in layers]
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    return json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode()


def saved(
    path: Path,
    *layers: bytes,
    tags: list[str] | None = None,
    body: bytes | None = None,
    more: bytes = b"",
    link: bool = False,
) -> Path:
    """What ``docker save`` of 24 and before writes; with ``link``, equal layers are links."""
    body = config(*layers) if body is None else body
    seen: dict[bytes, str] = {}
    members, names = b"", []
    for number, layer in enumerate(layers):
        name = f"{number:064x}/layer.tar"
        members += folder(f"{number:064x}/") + member(f"{number:064x}/VERSION", b"1.0")
        if link and layer in seen:
            members += symlink(name, f"../{seen[layer]}")
        else:
            members += member(name, layer)
        seen.setdefault(layer, name)
        names.append(name)
    config_name = f"{Digest.of(body).hex}.json"
    entry = {"Config": config_name, "RepoTags": tags, "Layers": names}
    members += member(config_name, body) + member("manifest.json", json.dumps([entry]).encode())
    path.write_bytes(members + more + END)
    return path


@contextmanager
def docker(path: Path, selector: str = "") -> Iterator[ArchiveRepository]:
    with path.open("rb") as file:
        yield open_docker(file.fileno(), name="docker-archive:x", selector=selector)


@contextmanager
def oci(path: Path, selector: str = "") -> Iterator[ArchiveRepository]:
    with path.open("rb") as file:
        yield open_oci(file.fileno(), name="oci-archive:x", selector=selector)


def image_of(repository: ArchiveRepository, reference: str = "") -> Manifest:
    descriptor, data = repository.manifest(reference)
    return parse_manifest(data, name="x", media_type=descriptor.media_type)


def contents(repository: ArchiveRepository, reference: str = "") -> list[bytes]:
    layers = image_of(repository, reference).layers
    return [repository.blob(layer, limit=1 << 20) for layer in layers]


def test_what_docker_saves(tmp_path: Path) -> None:
    with docker(saved(tmp_path / "x.tar", *LAYERS, tags=["web:2"])) as repository:
        assert contents(repository) == list(LAYERS)
        image = image_of(repository)
        assert repository.blob(image.config, limit=1 << 20) == config(*LAYERS)
        assert [layer.digest for layer in image.layers] == [Digest.of(one) for one in LAYERS]
        assert isinstance(repository, Ranges)
        assert repository.blob_range(image.layers[1], 0, 1) == b"b"
        assert repository.blob_range(image.layers[1], len(LAYERS[1]) - 1, 9) == b"\0"
        (listed,) = repository.entries()
        assert repository.resolve(str(listed.digest)) == listed
        assert repository.manifest(str(listed.digest)) == repository.manifest("")
        assert repository.has_blob(listed.digest)
        assert repository.has_blob(image.config.digest)
        assert repository.blob_range(listed, 1, 15) == b'"schemaVersion"'


@pytest.mark.parametrize(
    "selector",
    ["web:2", f"{HUB}/web:2", f"{HUB}/library/web:2", f"{hub.NAMES[1]}/web:2", "@0"],
)
def test_the_names_of_docker(tmp_path: Path, selector: str) -> None:
    path = saved(tmp_path / "x.tar", *LAYERS, tags=["other/x:1", "web:2"])
    with docker(path, selector) as repository:
        assert contents(repository, selector) == list(LAYERS)


def test_what_docker_means_by_a_name() -> None:
    assert docker_name("a") == f"{HUB}/library/a:latest"
    assert docker_name("a/b:1") == f"{HUB}/a/b:1"
    assert docker_name("localhost/a") == "localhost/a:latest"
    with pytest.raises(DocumentError, match="knows no digests"):
        docker_name(f"a@{Digest.of(b'')}")


def test_equal_layers_are_links(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.tar", LAYERS[0], LAYERS[1], LAYERS[0], link=True)
    with docker(path) as repository:
        assert contents(repository) == [LAYERS[0], LAYERS[1], LAYERS[0]]


def test_layers_that_are_packed(tmp_path: Path) -> None:
    """Nobody says their digest; the bytes are what they are, and the DiffID is checked later."""
    packed = gzip.compress(LAYERS[0])
    path = saved(tmp_path / "x.tar", packed, body=config(LAYERS[0]))
    with docker(path) as repository:
        assert contents(repository) == [packed]
        assert image_of(repository).layers[0].digest == Digest.of(packed)


@pytest.mark.parametrize("right", [True, False])
def test_what_crane_and_kaniko_write(tmp_path: Path, right: bool) -> None:
    """Packed layers, each once, and a configuration that is called by its digest."""
    packed, body = gzip.compress(LAYERS[0], mtime=0), config(LAYERS[0], LAYERS[0])
    name = f"sha256:{Digest.of(body if right else b'').hex}"
    layer = f"{Digest.of(packed).hex}.tar.gz"
    entry = {"Config": name, "RepoTags": None, "Layers": [layer, layer]}
    path = tmp_path / "x.tar"
    path.write_bytes(
        member(name, body)
        + member(layer, packed)
        + member("manifest.json", json.dumps([entry]).encode())
        + END
    )
    if right:
        with docker(path) as repository:
            assert contents(repository) == [packed, packed]
        return
    with pytest.raises(DigestError, match="configuration"), docker(path):
        pass


def test_what_docker_25_saves(tmp_path: Path) -> None:
    """It is a layout, too; its manifest has its digest of old there."""
    source = layout(tmp_path / "l")
    kept = put(source, *LAYERS, suffix="+gzip", tag="2")
    image = parse_manifest(source.manifest("2")[1], name="x")
    names = [f"blobs/sha256/{layer.digest.hex}" for layer in image.layers]
    entry = {
        "Config": f"blobs/sha256/{image.config.digest.hex}",
        "RepoTags": ["web:2"],
        "Layers": names,
        "LayerSources": {str(layer.digest): {"size": layer.size} for layer in image.layers},
    }
    (tmp_path / "l/manifest.json").write_text(json.dumps([entry]))
    path = pack(tmp_path / "l", tmp_path / "x.tar")
    with docker(path, "web:2") as repository:
        assert image_of(repository, "web:2").layers != ()
        assert contents(repository, "web:2") == [
            source.blob(layer, limit=1 << 20) for layer in image.layers
        ]
    with oci(path) as repository:
        assert repository.resolve("") == kept


def test_the_images_of_a_layout(tmp_path: Path) -> None:
    source = layout(tmp_path / "l")
    first, second = put(source, LAYERS[0], tag="a"), put(source, LAYERS[1], tag="b")
    put(source, LAYERS[1], tag="again")
    path = pack(tmp_path / "l", tmp_path / "x.tar")
    for selector, wanted in {
        "a": first,
        "b": second,
        "@1": second,
        str(first.digest): first,
    }.items():
        with oci(path, selector) as repository:
            assert repository.resolve(selector) == wanted
    index = tmp_path / "l/index.json"
    index.write_text(index.read_text().replace('"b"', f'"{first.digest}"'))
    with oci(pack(tmp_path / "l", tmp_path / "evil.tar"), str(first.digest)) as repository:
        assert repository.resolve(str(first.digest)) == first
    with pytest.raises(DocumentError, match="holds 2 images") as caught, oci(path):
        pass
    assert caught.value.hint == "say which one, as :NAME: a, again, b"
    for selector in ("c", "@7", str(Digest.of(b"c"))):
        with pytest.raises(MissingError), oci(path, selector):
            pass


def test_an_index_for_several_platforms(tmp_path: Path) -> None:
    source = layout(tmp_path / "l")
    one = put(source, LAYERS[0], tag=None)
    two = put(source, LAYERS[1], tag=None)
    put_index(source, {"linux/amd64": one, "linux/arm64": two}, "all")
    with oci(pack(tmp_path / "l", tmp_path / "x.tar")) as repository:
        assert repository.resolve("") == source.resolve("all")
        assert contents(repository, str(two.digest)) == [LAYERS[1]]


def test_documents_of_a_layout_that_are_not_what_they_should_be(tmp_path: Path) -> None:
    kept = put(layout(tmp_path / "l"), *LAYERS, tag="1")
    path = tmp_path / "x.tar"
    (tmp_path / "l/oci-layout").write_text('{"imageLayoutVersion":"2"}')
    with pytest.raises(DocumentError, match=r"is not '1\.0\.0'"), oci(pack(tmp_path / "l", path)):
        pass
    (tmp_path / "l/oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    large = b" " * ((4 << 20) + 1)
    for name in (Digest.of(large).hex, "no-digest"):
        (tmp_path / "l/blobs/sha256" / name).write_bytes(large)
    with oci(pack(tmp_path / "l", path)) as repository:
        assert repository.resolve("1") == kept
        with pytest.raises(DocumentError, match="is larger than"):
            repository.manifest(str(Digest.of(large)))
        with pytest.raises(MissingError, match="no manifest"):
            repository.manifest(str(Digest.of(b"other")))
        with pytest.raises(MissingError, match="no tag"):
            repository.manifest("2")
    (tmp_path / "l/index.json").write_bytes(large)
    with pytest.raises(DocumentError, match="is larger than"), oci(pack(tmp_path / "l", path)):
        pass


def test_nothing_is_written(tmp_path: Path) -> None:
    with docker(saved(tmp_path / "x.tar", *LAYERS)) as repository:
        blob = Descriptor(media_type="x", digest=Digest.of(b"x"), size=1)
        with pytest.raises(UsageError, match="docker-archive:x can only be read"):
            repository.put_blob(blob, (b"x",))
        with pytest.raises(UsageError):
            repository.put_manifest(b"{}", media_type=DOCKER_MANIFEST)


def test_an_archive_of_the_other_kind_is_named(tmp_path: Path) -> None:
    put(layout(tmp_path / "l"), *LAYERS)
    for opened, path, hint in (
        (docker, pack(tmp_path / "l", tmp_path / "o.tar"), "oci-archive:FILE"),
        (oci, saved(tmp_path / "d.tar", *LAYERS), "docker-archive:FILE"),
    ):
        with pytest.raises(MachineOSError) as caught, opened(path):
            pass
        assert caught.value.hint == f"name it as {hint}"


def test_bytes_that_are_not_what_they_are_called(tmp_path: Path) -> None:
    changed = (LAYERS[0], LAYERS[1].replace(b"two", b"TWO"))
    with docker(saved(tmp_path / "x.tar", *changed, body=config(*LAYERS))) as repository:
        with pytest.raises(DigestError):
            contents(repository)
    path = saved(tmp_path / "y.tar", *LAYERS)
    path.write_bytes(path.read_bytes().replace(b'"linux"', b'"Linux"'))
    with pytest.raises(DigestError, match="configuration"), docker(path):
        pass


def test_a_file_that_is_cut_off_meanwhile(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.tar", *LAYERS)
    with docker(path) as repository:
        os.truncate(path, 1600)
        with pytest.raises(DigestError):
            contents(repository)


def documents() -> Iterator[tuple[str, list[dict[str, Any]] | dict[str, Any], str]]:
    good = {"Config": "c", "Layers": ["a", "b"]}
    yield "no list", {}, "is not a list"
    yield "nothing", [], "holds no image"
    yield "two", [good, {"Config": "d"}], "holds 2 images"
    yield "a layer that is not there", [{"Config": "c", "Layers": ["a", "x"]}], "no file 'x'"
    yield "too few layers", [{"Config": "c", "Layers": ["a"]}], "2 entries for 1 layers"
    yield "no configuration", [{"Config": "x", "Layers": []}], "no file 'x'"
    yield "out of it", [{"Config": "../c", "Layers": []}], "leads out of the archive"
    yield "a link out of it", [{"Config": "out", "Layers": []}], "leads out of the archive"
    yield "a circle", [{"Config": "circle", "Layers": []}], "too many links"
    yield "another type", [{"Config": 1, "Layers": []}], "Expected `str`"


@pytest.mark.parametrize(("what", "body", "message"), list(documents()))
def test_documents_that_say_something_else(
    tmp_path: Path, what: str, body: object, message: str
) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(
        member("c", config(*LAYERS))
        + member("a", LAYERS[0])
        + hardlink("b", "b2")
        + member("b2", LAYERS[1])
        + symlink("out", "../../etc/passwd")
        + symlink("circle", "circle")
        + member("manifest.json", json.dumps(body).encode())
        + END
    )
    with pytest.raises(MachineOSError, match=message), docker(path):
        pass


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "holds no file 'manifest.json'"),
        (b"x" * 512, "has a checksum that is not a number"),
        (member("manifest.json", b"[]") + member("./manifest.json", b"[]") + END, "twice"),
        (member("../x", b"") + END, "leads out of the archive"),
        (header("x", size=1 << 30), "is cut off"),
        (member("manifest.json", b"[" * 40 + b"]" * 40) + END, "nested deeper"),
        (header("x", kind=b"x", size=2 << 20) + END, "extended header of"),
    ],
)
def test_damaged_archives(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(data)
    with pytest.raises(MachineOSError, match=message), docker(path):
        pass


def test_what_is_no_file_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(header("manifest.json", kind=b"3") + folder("d/") + END)
    with pytest.raises(MissingError), docker(path):
        pass


def test_how_many_members_there_may_be() -> None:
    block = folder("d/")  # again and again
    end = (MAX_MEMBERS + 1) * len(block)
    with pytest.raises(ArchiveError, match="more than 100000 members"):
        index_members(lambda size, at: block[:size], end, what="x")


def test_how_long_the_names_may_be() -> None:
    name = b"n" * 4000
    long = header("././@LongLink", kind=b"L", size=len(name)) + name + bytes(-len(name) % 512)
    data = (long + folder("d/")) * 5000
    with pytest.raises(ArchiveError, match="names of more than"):
        index_members(lambda size, at: data[at : at + size], len(data), what="x")


def test_names_as_seen_from_the_root() -> None:
    assert inside("./a//b/../c") == "a/c"
    assert inside("/a") == "a"
    assert inside("a/../..") is None


@pytest.mark.tool("skopeo")
def test_the_manifest_has_the_digest_that_skopeo_says(tmp_path: Path) -> None:
    """So an author can learn what to claim as ``digest``."""
    path = saved(tmp_path / "x.tar", *LAYERS, tags=["web:2"])
    said = json.loads(run(["skopeo", "inspect", f"docker-archive:{path}"], timeout=PATIENCE).stdout)
    with docker(path) as repository:
        assert str(repository.resolve("").digest) == said["Digest"]


@pytest.mark.tool("skopeo")
def test_what_skopeo_writes(tmp_path: Path) -> None:
    source = layout(tmp_path / "l")
    kept = put(source, *LAYERS, tag="a")
    for way, opened in (("oci-archive", oci), ("docker-archive", docker)):
        path = tmp_path / f"{way}.tar"
        target = f"{way}:{path}:h.example/x:a" if way == "docker-archive" else f"{way}:{path}:a"
        argv = ["skopeo", "--insecure-policy", "copy", "-q", f"oci:{source.path}:a", target]
        run(argv, timeout=PATIENCE)
        with opened(path) as repository:
            assert len(image_of(repository).layers) == 2
            if way == "docker-archive":
                assert contents(repository) == list(LAYERS)
    assert kept.size
