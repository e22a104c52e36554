"""Images in the layouts that other people's programs write, converted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from machineos.build.recipe.conversion import Conversion
from machineos.build.recipe.convert import convert_image
from machineos.core.clock import SystemClock
from machineos.core.run import perform, run
from machineos.host.pack import squashfs
from machineos.oci.graph.copy import copy_graph
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.documents import parse_manifest
from unit.build.images import EPOCH, layout, put
from unit.build.tarmaker import END, folder, member
from unit.registries import docker_registry, fake, name, opened, product

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.oci.model.repository import Repository

__all__ = ["docker_registry", "fake", "name", "product"]
pytestmark = [
    pytest.mark.system,
    pytest.mark.root,
    pytest.mark.tool("mksquashfs"),
    pytest.mark.tool("unsquashfs"),
    pytest.mark.tool("veritysetup"),
]
TIMEOUT = 300.0


def tree_of(source: Repository, tag: str, folder: Path) -> Path:
    """Convert an image and return what is in its layer."""
    (folder / "work").mkdir()
    conversion = Conversion(folder / "work", epoch=EPOCH, clock=SystemClock())
    out = layout(folder / "out")
    found = convert_image(source, tag, out, conversion, tag="t")
    (layer,) = parse_manifest(out.manifest(str(found.digest))[1], name="m").layers
    perform(squashfs.view_command(out.blob_path(layer.digest), folder / "tree"))
    return folder / "tree"


def umoci(image: str, *words: str, where: Path) -> None:
    run(["umoci", words[0], "--image", image, *words[1:]], timeout=TIMEOUT, cwd=where)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A layout of umoci's with the image ``1.0``, of two layers."""
    for one, text in (("one", "1"), ("two", "2")):
        (tmp_path / one / "opt").mkdir(parents=True)
        (tmp_path / one / "opt" / one).write_text(text)
    run(["umoci", "init", "--layout", "made"], timeout=TIMEOUT, cwd=tmp_path)
    umoci("made:1.0", "new", where=tmp_path)
    for one in ("one", "two"):
        umoci("made:1.0", "insert", f"{one}/opt/{one}", f"/opt/{one}", where=tmp_path)
    umoci("made:1.0", "config", "--config.entrypoint", "/opt/one", where=tmp_path)
    return tmp_path / "made"


@pytest.mark.tool("umoci")
@pytest.mark.works("its layouts, converted", "umoci")
def test_a_layout_of_umoci(made: Path, tmp_path: Path) -> None:
    tree = tree_of(LayoutRepository(made), "1.0", tmp_path)
    assert (tree / "opt/one").read_text() + (tree / "opt/two").read_text() == "12"


@pytest.mark.tool("umoci")
@pytest.mark.tool("skopeo")
@pytest.mark.works("its layouts with zstd, converted", "skopeo")
def test_a_layout_of_skopeo_with_another_compression(made: Path, tmp_path: Path) -> None:
    words = ["--insecure-policy", "copy", "-q", "--dest-compress-format", "zstd"]
    run(
        ["skopeo", *words, f"oci:{made}:1.0", "oci:theirs:registry.example/library/x:1.0"],
        timeout=TIMEOUT,
        cwd=tmp_path,
    )
    theirs = LayoutRepository(tmp_path / "theirs")
    tree = tree_of(theirs, "registry.example/library/x:1.0", tmp_path)
    assert (tree / "opt/one").read_text() + (tree / "opt/two").read_text() == "12"


@pytest.mark.tool("buildah")
@pytest.mark.works("its layouts, converted", "buildah")
@pytest.mark.parametrize("form", ["oci", "docker"])
def test_a_layout_of_buildah(tmp_path: Path, form: str) -> None:
    (tmp_path / "one").write_text("1")
    store = ["--storage-driver", "vfs", "--root", "root", "--runroot", "runroot"]

    def buildah(*words: str) -> str:
        return run(["buildah", *store, *words], timeout=TIMEOUT, cwd=tmp_path).text

    (tmp_path / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    made = buildah("from", "scratch")
    buildah("copy", made, "one", "/opt/one")
    buildah("config", "--entrypoint", '["/opt/one"]', made)
    policy = ["--signature-policy", "policy.json"]
    buildah("commit", "-q", *policy, "--format", form, made, "oci:theirs:1.0")
    assert (tree_of(LayoutRepository(tmp_path / "theirs"), "1.0", tmp_path) / "opt/one").is_file()


@pytest.mark.works("convert")
def test_an_image_is_converted_out_of_each_registry(
    product: str, name: str, tmp_path: Path
) -> None:
    local = layout(tmp_path / "local")
    put(local, folder("opt/") + member("opt/one", b"1") + END, suffix="+gzip", tag="1.0")
    with opened(product, tmp_path) as registry:
        repository = registry.repository(name)
        copy_graph(local, repository, "1.0", tag="1.0")
        tree = tree_of(repository, "1.0", tmp_path)
    assert (tree / "opt/one").read_text() == "1"
