"""``mosb manifest init`` as a user types it."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from machineos.build.publish.publish import load_source
from machineos.core.digest import Digest
from machineos.errors import ConflictError, DocumentError, MissingError, UsageError
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.documents import parse_manifest
from unit.build import ready
from unit.build.images import put, put_index
from unit.build.tarmaker import END, folder, member
from unit.cli.developer.test_mosb_manifest import NAME, Mosb, mosb, prepared

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["mosb", "prepared"]
pytestmark = [pytest.mark.tool(name) for name in ("mksquashfs", "sqfs2tar", "veritysetup")]


def init(mosb: Mosb, *more: str) -> str:
    images = LayoutRepository(mosb.home / "images", writable=True)
    ready.put(images, "zot", ready.noted("zot 0"))
    return mosb("init", *more, f"oci:{mosb.home}/images:zot").stdout


def test_a_manifest_of_an_image(mosb: Mosb) -> None:
    path = mosb.home / "new.yaml"
    said = init(mosb, "--output", str(path), "--product", "default")
    assert said == f"{path}: 1 targets; look at what is marked with ?\n"
    assert load_source(path).targets[0].service_name == "zot"


def test_a_file_is_never_replaced_without_force(mosb: Mosb) -> None:
    path = mosb.home / "manifest.yaml"
    before = path.read_bytes()
    with pytest.raises(ConflictError, match="exists already"):
        init(mosb, "--output", str(path))
    assert path.read_bytes() == before
    init(mosb, "--output", str(path), "--force")
    assert path.read_bytes() != before


def test_standard_output_and_json(mosb: Mosb) -> None:
    text = init(mosb, "--output", "-", "--product", "p")
    assert text.startswith("# Written by `mosb manifest init`")
    assert 'product: "p"' in text
    body = json.loads(init(mosb, "--json", "--output", str(mosb.home / "new.yaml")))
    assert [target["service_name"] for target in body["targets"]] == ["zot"]
    assert body["file"] == str(mosb.home / "new.yaml")
    with pytest.raises(UsageError):
        init(mosb, "--json", "--output", "-")


def test_without_an_image_what_was_built_here(mosb: Mosb, tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path):
        with pytest.raises(UsageError, match="name an IMAGE"):
            mosb("init")
        built = LayoutRepository(tmp_path / "oci", writable=True)
        for tag in ("web", "database"):
            put(built, b"", tag=tag, config={"Cmd": [f"/{tag}"]})
        mosb("init")
        names = [target.service_name for target in load_source(tmp_path / "manifest.yaml").targets]
    assert names == ["database", "web"]


def test_images_that_cannot_be_used(mosb: Mosb, tmp_path: Path) -> None:
    layout = LayoutRepository(tmp_path, writable=True)
    arm = put(layout, b"", tag="arm")
    put_index(layout, {"linux/arm64": arm}, "index")
    found, data = layout.manifest("arm")
    config = parse_manifest(data, name="arm").config
    body = layout.blob(config, limit=1 << 20).replace(b'"amd64"', b'"arm64"')
    entry = replace(config, digest=Digest.of(body), size=len(body))
    layout.put_blob(entry, (body,))
    other = replace(parse_manifest(data, name="arm"), config=entry)
    layout.put_manifest(other.to_bytes(), media_type=found.media_type, tag="other")
    put(layout, b"", tag="bad", config={"Cmd": ["/x"], "Env": ["no equals sign"]})
    with pytest.raises(MissingError, match="linux/amd64") as caught:
        mosb("init", "--output", "-", f"oci:{tmp_path}:index")
    assert "linux/arm64" in caught.value.hint
    with pytest.raises(DocumentError, match="architecture: is 'arm64', not amd64"):
        mosb("init", "--output", "-", f"oci:{tmp_path}:other")
    with pytest.raises(DocumentError, match="Env"):
        mosb("init", "--output", "-", f"oci:{tmp_path}:bad")
    with pytest.raises(MissingError, match="no tag 'none'"):
        mosb("init", "--output", "-", f"oci:{tmp_path}:none")


TREE = b"".join(
    folder(name) for name in ("proc/", "sys/", "dev/", "tmp/", "run/", "bin/", "var/")
) + member("bin/x", b"x" * 5000, mode=0o755)
CONFIGS: list[dict[str, object]] = [
    {"Entrypoint": ["/bin/x"], "ExposedPorts": {"80/tcp": {}, "53/udp": {}}, "User": "7:7"},
    {"Cmd": ["/bin/x"], "Volumes": {"/data": {}, "/var/lib/app": {}}, "Env": ["A=b"]},
    {"Cmd": None, "ExposedPorts": None, "Volumes": None},
]


@pytest.mark.system
@pytest.mark.tool("mksquashfs")
@pytest.mark.tool("veritysetup")
def test_what_is_drafted_of_tar_images_is_converted_and_published(mosb: Mosb) -> None:
    layout = LayoutRepository(mosb.home / "images", writable=True)
    images = []
    for number, config in enumerate(CONFIGS):
        put(layout, TREE + END, tag=f"app{number}", suffix="+gzip", config=config)
        images.append(f"oci:{mosb.home}/images:app{number}")
    path = mosb.home / "new.yaml"
    said = mosb("init", "--output", str(path), *images)
    assert "app2: the image has nothing to run" in said.stderr
    path.write_text(path.read_text().replace("complete\n", "partial\n"))
    options = ["--project", "snakeoil:default", *mosb.repo, *NAME, "--skip-bootkit", "--json"]
    install = json.loads(mosb("publish", *options, str(path)).stdout)["install"]
    assert [one["service_name"] for one in install["targets"]] == ["app0", "app1", "app2"]
    assert [one["service_type"] for one in install["targets"]] == [
        "container", "container", "fs-only",
    ]  # fmt: skip
    assert [one["label"] for one in install["storage"]] == ["app1-data", "app1-app"]
