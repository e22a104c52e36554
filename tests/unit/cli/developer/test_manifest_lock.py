"""``mosb manifest lock``, and publishing with the lock, as a user types them."""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
from pathlib import Path

import pytest

from machineos.core.run import run
from machineos.errors import ConflictError, DocumentError, MissingError, UsageError
from machineos.oci.layout.folder import LayoutRepository
from unit.build.images import put
from unit.build.tarmaker import END, folder, member
from unit.cli.developer.test_mosb_manifest import (
    NAME,
    Mosb,
    mosb,
    prepared,
    publish,
    put_image,
)
from waiting import PATIENCE

__all__ = ["mosb", "prepared"]
PROJECT = ["--project", "snakeoil:default"]


def lock(mosb: Mosb, *more: str) -> str:
    return mosb("lock", *PROJECT, *more, str(mosb.home / "manifest.yaml")).stdout


def move(mosb: Mosb) -> None:
    """Let the tag of the service become another image."""
    put_image(mosb.home / "images", "zot-new")
    images = LayoutRepository(mosb.home / "images", writable=True)
    found, data = images.manifest("zot-new")
    images.put_manifest(data, media_type=found.media_type, tag="zot")


def zot(mosb: Mosb, *options: str) -> str:
    body = json.loads(publish(mosb, "--json", *options).stdout)
    return str(body["install"]["targets"][0]["digest"])


def test_the_lock_is_beside_the_manifest_and_written_once(mosb: Mosb) -> None:
    path = mosb.home / "manifest.lock"
    assert lock(mosb) == f"{path}: 3 images, written\n"
    first = path.read_bytes(), path.stat().st_mtime_ns
    assert lock(mosb) == f"{path}: 3 images, nothing moved\n"
    assert (path.read_bytes(), path.stat().st_mtime_ns) == first
    assert b"keyset:hostfs" in first[0]
    body = json.loads(lock(mosb, "--json"))
    assert (body["lock"], body["written"], body["moved"]) == (str(path), False, [])
    assert [image["source"] for image in body["images"]][1:] == ["keyset:hostfs", "keyset:bootkit"]


def test_check_fails_when_something_moved_and_writes_nothing(mosb: Mosb) -> None:
    path = mosb.home / "manifest.lock"
    with pytest.raises(MissingError, match=r"manifest\.lock does not exist"):
        lock(mosb, "--check")
    lock(mosb)
    before = path.read_bytes()
    assert "nothing moved" in lock(mosb, "--check")
    move(mosb)
    with pytest.raises(ConflictError, match=r"images:zot is now sha256:.*, the lock has sha256:"):
        lock(mosb, "--check")
    assert path.read_bytes() == before
    assert "images:zot is now" in lock(mosb)
    assert "nothing moved" in lock(mosb, "--check", "--json") or path.read_bytes() != before


def test_publishing_says_what_moved_and_takes_what_is_locked(mosb: Mosb) -> None:
    old = zot(mosb)
    lock(mosb)
    move(mosb)
    result = publish(mosb, "--json")
    assert "images:zot is now sha256:" in result.stderr
    body = json.loads(result.stdout)
    assert body["locked"] is True
    assert len(body["moved"]) == 1
    assert body["install"]["targets"][0]["digest"] == old
    assert zot(mosb, "--locked") == old
    new = zot(mosb, "--no-lock")
    assert new != old
    assert zot(mosb) == old
    assert zot(mosb, "--update") == new
    assert zot(mosb) == new


def test_publishing_without_a_lock_goes_by_tags_unless_told(mosb: Mosb) -> None:
    assert json.loads(publish(mosb, "--json").stdout)["locked"] is False
    with pytest.raises(MissingError, match=r"manifest\.lock does not exist"):
        publish(mosb, "--locked")
    publish(mosb, "--update")
    assert (mosb.home / "manifest.lock").is_file()


def test_a_lock_that_does_not_fit_or_cannot_be_read(mosb: Mosb) -> None:
    lock(mosb)
    put_image(mosb.home / "images", "zot-new")
    path = mosb.home / "manifest.yaml"
    path.write_text(path.read_text().replace("images:zot", "images:zot-new"))
    with pytest.raises(ConflictError, match=r"zot: oci:.*:zot-new") as caught:
        publish(mosb)
    assert "mosb manifest lock" in caught.value.hint
    assert not (mosb.home / "registry").exists()
    (mosb.home / "manifest.lock").write_text("version: 1\nimages: {}\n")
    with pytest.raises(DocumentError, match="line 2: images: must be a list"):
        publish(mosb)
    publish(mosb, "--no-lock")


def test_services_alone_are_locked_without_a_keyset(mosb: Mosb) -> None:
    path = str(mosb.home / "manifest.yaml")
    with pytest.raises(UsageError, match="--project"):
        mosb("lock", path)
    lock(mosb)
    assert "nothing moved" in mosb("lock", "--skip-bootkit", "--check", path).stdout
    mosb("lock", "--skip-bootkit", path)
    assert "keyset:" not in (mosb.home / "manifest.lock").read_text()
    with pytest.raises(ConflictError, match="keyset:hostfs"):
        publish(mosb)


def pack(mosb: Mosb) -> None:
    """Make an archive of the images."""
    with tarfile.open(mosb.home / "images.tar", "w") as archive:
        archive.add(mosb.home / "images", arcname=".")


def test_an_image_of_an_archive_is_locked_too(mosb: Mosb) -> None:
    path = mosb.home / "manifest.yaml"
    archive = f"oci-archive:{mosb.home}/images.tar:zot"
    path.write_text(path.read_text().replace(f"oci:{mosb.home}/images:zot", archive))
    pack(mosb)
    lock(mosb)
    locked = zot(mosb)
    move(mosb)
    pack(mosb)
    result = publish(mosb, "--json")
    assert f"{archive} is now sha256:" in result.stderr
    assert json.loads(result.stdout)["install"]["targets"][0]["digest"] == locked
    shutil.rmtree(mosb.home / "images")
    put_image(mosb.home / "images", "zot-new")
    move(mosb)
    pack(mosb)
    with pytest.raises(MissingError, match=r"the image that manifest\.lock has") as caught:
        publish(mosb)
    assert "mosb manifest lock" in caught.value.hint


TREE = b"".join(
    folder(name) for name in ("proc/", "sys/", "dev/", "tmp/", "run/", "bin/", "var/")
) + member("bin/x", b"x" * 5000, mode=0o755)
CODE = "from machineos.cli.developer.mosb import main; main()"


def publish_elsewhere(
    place: Path, home: Path, *, umask: int, zone: str, cache: str, told: bool = False
) -> str:
    """Publish on what may as well be another machine; return what was printed, or ``told``."""
    command = f'umask {umask:03o}; cd "$1"; shift; exec "$@"'
    environ = {"HOME": str(home), "TZ": zone, "XDG_CACHE_HOME": cache, "LANG": "C"}
    argv = [
        "sh", "-c", command, "sh", str(place), sys.executable, "-c", CODE, "manifest", "publish",
        "--json", *PROJECT, "--repo", "oci:registry", *NAME, "--locked", "manifest.yaml",
    ]  # fmt: skip
    ended = run(argv, timeout=PATIENCE, env=environ)
    return ended.stderr.decode() if told else ended.text


@pytest.mark.system
@pytest.mark.tool("mksquashfs")
@pytest.mark.tool("veritysetup")
def test_two_machines_publish_the_same_bytes(mosb: Mosb, tmp_path: Path) -> None:
    """The same manifest, lock and keys: other folders, homes, caches, umasks, time zones; and on
    the second the tag has moved."""
    places = [tmp_path / "a", tmp_path / "further/away/b"]
    homes = [mosb.home, tmp_path / "somebody"]
    shutil.copytree(mosb.home, homes[1])
    text = (mosb.home / "manifest.yaml").read_text()
    for place in places:
        place.mkdir(parents=True)
        images = LayoutRepository(place / "images", writable=True)
        put(images, TREE + END, tag="zot", suffix="+gzip")
        relative = text.replace(f"oci:{mosb.home}/images", "oci:images")
        (place / "manifest.yaml").write_text(relative)
    argv = [sys.executable, "-c", CODE, "manifest", "lock", *PROJECT, "manifest.yaml"]
    run(argv, timeout=PATIENCE, cwd=places[0], env={"HOME": str(homes[0])})
    shutil.copy(places[0] / "manifest.lock", places[1])
    put(LayoutRepository(places[1] / "images", writable=True), TREE + member("n") + END, tag="zot")
    said = [
        publish_elsewhere(places[0], homes[0], umask=0o022, zone="UTC", cache=""),
        publish_elsewhere(
            places[1], homes[1], umask=0o077, zone="Asia/Kolkata", cache=str(tmp_path / "cache")
        ),
    ]
    first, second = (json.loads(text) for text in said)
    assert len(first.pop("moved")) == 0
    assert len(second.pop("moved")) == 1
    assert first == second
    blobs = [
        sorted(path.relative_to(place) for path in (place / "registry").rglob("blobs/sha256/*"))
        for place in places
    ]
    assert blobs[0] == blobs[1]
    assert len(blobs[0]) > 12
    indexes = [sorted((place / "registry").rglob("index.json")) for place in places]
    for one, two in zip(*indexes, strict=True):
        assert one.read_bytes() == two.read_bytes()


@pytest.mark.system
@pytest.mark.root
@pytest.mark.tool("mksquashfs")
@pytest.mark.tool("veritysetup")
@pytest.mark.tool("sqfs2tar")
def test_who_packed_an_image_is_in_the_lock(mosb: Mosb, tmp_path: Path) -> None:
    """Only one of two machines has the record that it packed the image: both publish the same."""
    homes, places = [mosb.home, tmp_path / "somebody"], [tmp_path / "a", tmp_path / "b"]
    shutil.copytree(mosb.home, homes[1])
    places[0].mkdir()
    text = (mosb.home / "manifest.yaml").read_text()
    (places[0] / "manifest.yaml").write_text(
        text.replace(f"oci:{mosb.home}/images", "oci:images").replace("images:zot", "images:own")
    )
    (places[0] / "stacker.yaml").write_text(
        "own:\n  from: {type: scratch}\n  imports: [{path: manifest.yaml, dest: /etc/x}]\n"
        "  entrypoint: [/etc/x]\n"
    )

    def at(place: Path, home: Path, *words: str) -> str:
        argv = [sys.executable, "-c", CODE, *words]
        return run(argv, timeout=PATIENCE, cwd=place, env={"HOME": str(home)}).text

    at(places[0], homes[0], "image", "build", "--layout", "oci:images")
    at(places[0], homes[0], "manifest", "lock", *PROJECT, "manifest.yaml")
    locked = (places[0] / "manifest.lock").read_text()
    assert locked.count("    packed: true\n") == 1
    shutil.copytree(places[0], places[1])
    built = str(LayoutRepository(places[0] / "images").resolve("own").digest)

    def images() -> set[str]:
        return {
            json.loads(publish_elsewhere(place, home, umask=0o022, zone="UTC", cache=""))[
                "install"
            ]["targets"][0]["digest"]
            for place, home in zip(places, homes, strict=True)
        }

    assert images() == {built}
    said = publish_elsewhere(places[1], homes[1], umask=0o022, zone="UTC", cache="", told=True)
    assert "manifest.lock says that who wrote it packed it" in said
    at(places[1], homes[1], "manifest", "lock", *PROJECT, "manifest.yaml")
    assert (places[1] / "manifest.lock").read_text() == locked  # though it does not know it itself
    for place in places:
        (place / "manifest.lock").write_text(locked.replace("    packed: true\n", ""))
    (again,) = images()
    assert again != built
