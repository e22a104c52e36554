"""Ten images of other origins: by the tools that people build with, where these are on the machine,
and in the shapes that others leave behind.

Owns how they are made. Invariant: no two share a layer, so that nothing is converted from a cache;
what a tool needs that is not here (Go for ko, Maven for jib) leaves its image out, and the row says
so. ``scripts/bench`` installs umoci and buildah.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bench import debian
from bench.registry import docker_registry
from bench.workspace import TOP
from machineos.core.digest import Digest
from machineos.core.run import run
from machineos.errors import MachineOSError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.workspace import Bench

TAG = "app"
_TIMEOUT = 1800.0
_OCI, _DOCKER = "application/vnd.oci.image.", "application/vnd.docker."
_PARTS = ("usr/bin", "usr/lib/python3.13", "usr/share/perl")
_KO, _JIB = "github.com/google/ko@v0.18.0", "3.4.4"
_GO_MAIN = 'package main\n\nimport "net/http"\n\nfunc main() { http.ListenAndServe(":80", nil) }\n'
_JAVA_MAIN = "public class App { public static void main(String[] a) { System.out.println(1); } }\n"
_POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>bench</groupId><artifactId>app</artifactId><version>1</version>
<properties><maven.compiler.source>17</maven.compiler.source>
<maven.compiler.target>17</maven.compiler.target></properties>
<build><plugins><plugin><groupId>com.google.cloud.tools</groupId>
<artifactId>jib-maven-plugin</artifactId><version>{version}</version>
<configuration><from><image>scratch</image></from><to><image>app</image></to>
<container><mainClass>App</mainClass></container>
<extraDirectories><paths><path><from>{tree}</from><into>/opt/app</into></path></paths>
</extraDirectories></configuration></plugin></plugins></build></project>
"""


@dataclass(frozen=True, slots=True)
class Origin:
    """One image: who made it, the layout where it is ``app``, and the same in the only shape that
    umoci 0.4 reads (OCI, gzip; the same folder where it is that already)."""

    name: str
    layout: Path
    plain: Path


def origins(bench: Bench) -> tuple[tuple[Origin, ...], tuple[str, ...]]:
    """Return the images, kept between runs, and what could not be made and why."""
    base = bench.folder / "origins"
    found: list[Origin] = []
    missing: list[str] = []
    for number, (name, make) in enumerate(_MAKERS.items()):
        folder = base / name.replace(" ", "-")
        if not (folder / "made").is_file():
            bench.say(f"  (making an image as {name} does)")
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            tree = _tree(bench, folder / "tree", number)
            try:
                make(bench, tree, folder)
            except MachineOSError as error:
                missing.append(f"{name}: {' '.join(error.message.split())[:160]}")
                continue
            shutil.rmtree(tree)
            _plain(folder)
            (folder / "made").touch()
        plain = folder / "plain"
        found.append(Origin(name, folder / "oci", plain if plain.is_dir() else folder / "oci"))
    return tuple(found), tuple(missing)


def _tree(bench: Bench, folder: Path, number: int) -> Path:
    """Make some sixty megabytes of programs and scripts, and one file that no other image has."""
    if bench.quick:
        shutil.copytree(TOP / "src", folder / "usr/src")
    else:
        for part in _PARTS:
            source = debian.tree(bench) / part
            if source.is_dir():
                (folder / part).parent.mkdir(parents=True, exist_ok=True)
                run(["cp", "-a", source, folder / part], timeout=_TIMEOUT)
    (folder / "number").write_text(f"{number}\n")
    return folder


def _plain(folder: Path) -> None:
    """Write the image for umoci, where it cannot read it as it is and it is not there yet."""
    if (folder / "plain").is_dir():
        return
    index = (folder / "oci/index.json").read_bytes()
    texts = [path.read_bytes() for path in (folder / "oci/blobs/sha256").iterdir()
             if path.stat().st_size < 1 << 20]  # fmt: skip
    if not any(
        word in text for text in (index, *texts) for word in (b"+zstd", b"docker", b".index.v1")
    ):
        return
    source = f"oci:{folder / 'oci'}:{TAG}"
    argv = ["skopeo", "copy", "--quiet", "--override-arch=amd64", "--override-os=linux"]
    shape = ["--format=oci", "--dest-compress-format=gzip"]
    middle = f"dir:{folder / 'middle'}"
    run([*argv, "--dest-decompress", source, middle], timeout=_TIMEOUT)
    run([*argv, *shape, middle, f"oci:{folder / 'plain'}:{TAG}"], timeout=_TIMEOUT)
    shutil.rmtree(folder / "middle")


def _umoci(_bench: Bench, tree: Path, folder: Path) -> None:
    image = f"{folder / 'oci'}:{TAG}"
    bundle = folder / "bundle"
    run(["umoci", "init", "--layout", folder / "oci"], timeout=_TIMEOUT)
    run(["umoci", "new", "--image", image], timeout=_TIMEOUT)
    run(["umoci", "unpack", "--image", image, bundle], timeout=_TIMEOUT)
    run(["cp", "-a", f"{tree}/.", bundle / "rootfs"], timeout=_TIMEOUT)
    run(["umoci", "repack", "--image", image, bundle], timeout=_TIMEOUT)
    run(["umoci", "config", "--image", image, "--config.cmd", "/usr/bin/true"], timeout=_TIMEOUT)
    shutil.rmtree(bundle)


def _umoci_layers(bench: Bench, tree: Path, folder: Path) -> None:
    """A second layer, which removes a folder of the first and changes a file."""
    _umoci(bench, tree, folder)
    image, bundle = f"{folder / 'oci'}:{TAG}", folder / "bundle"
    run(["umoci", "unpack", "--image", image, bundle], timeout=_TIMEOUT)
    root = bundle / "rootfs"
    doomed = next(path for path in sorted((root / "usr").rglob("*")) if path.is_dir())
    shutil.rmtree(doomed)
    (root / "number").write_text("changed\n")
    run(["umoci", "repack", "--refresh-bundle", "--image", image, bundle], timeout=_TIMEOUT)
    run(["umoci", "gc", "--layout", folder / "oci"], timeout=_TIMEOUT)
    shutil.rmtree(bundle)


def _buildah(bench: Bench, tree: Path, folder: Path, *, steps: Sequence[str] = ("",)) -> None:
    recipe = "FROM scratch\n" + "".join(f"COPY tree/{part} /{part}\n" for part in steps)
    (folder / "Containerfile").write_text(f'{recipe}ENTRYPOINT ["/usr/bin/true"]\n')
    where: list[str | Path] = [
        "--root",
        folder / "storage",
        "--runroot",
        folder / "run",
        "--storage-driver",
        "vfs",
    ]
    env = {"HOME": str(folder), "BUILDAH_ISOLATION": "chroot"}
    run(
        ["buildah", *where, "build", "--quiet", "--layers", "--tag", TAG, folder],
        timeout=_TIMEOUT, env=env,
    )  # fmt: skip
    target = f"oci:{folder / 'oci'}:{TAG}"
    run(["buildah", *where, "push", "--quiet", TAG, target], timeout=_TIMEOUT, env=env)
    shutil.rmtree(folder / "storage")
    del bench, tree


def _buildah_layers(bench: Bench, tree: Path, folder: Path) -> None:
    """A layer for each instruction."""
    _buildah(bench, tree, folder, steps=("usr", "number"))


def _zstd(bench: Bench, tree: Path, folder: Path) -> None:
    """What buildah made, compressed anew by skopeo."""
    _buildah(bench, tree, folder)
    (folder / "oci").rename(folder / "first")
    run(
        ["skopeo", "copy", "--quiet", "--dest-compress-format=zstd", "--format=oci",
         f"oci:{folder / 'first'}:{TAG}", f"oci:{folder / 'oci'}:{TAG}"],
        timeout=_TIMEOUT,
    )  # fmt: skip
    shutil.rmtree(folder / "first")


def _ko(bench: Bench, tree: Path, folder: Path) -> None:
    """A Go program, with the tree as its data, on an empty base of a registry of our own."""
    home = bench.folder / "tools"
    home.mkdir(exist_ok=True)
    env = {
        "HOME": str(home), "GOBIN": str(home), "GOFLAGS": "-modcacherw -buildvcs=false",
        "PATH": f"/usr/local/go/bin:{os.environ.get('PATH', '')}",
    }  # fmt: skip
    if not (home / "ko").is_file():
        run(["/usr/local/go/bin/go", "install", _KO], timeout=_TIMEOUT, env=env)
    code = folder / "code"
    shutil.copytree(tree, code / "kodata", symlinks=True)
    _without_links(code / "kodata")
    (code / "go.mod").write_text("module example.test/app\n\ngo 1.21\n")
    (code / "main.go").write_text(_GO_MAIN)
    base = folder / "base"
    _layout(base, (), _config((), {}), docker=False)
    with docker_registry(folder / "registry") as address:
        push = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false"]
        run([*push, f"oci:{base}:{TAG}", f"docker://{address}/base:1"], timeout=_TIMEOUT)
        run(
            [home / "ko", "build", "--push=false", "--insecure-registry", "--bare",
             "--platform=linux/amd64", f"--oci-layout-path={folder / 'oci'}", "."],
            timeout=_TIMEOUT, cwd=code,
            env=env | {"KO_DEFAULTBASEIMAGE": f"{address}/base:1", "KO_DOCKER_REPO": address},
        )  # fmt: skip
    _name(folder / "oci")
    for name in ("code", "base", "registry"):
        shutil.rmtree(folder / name)


def _jib(bench: Bench, tree: Path, folder: Path) -> None:
    """A Java program, with the tree as an extra folder."""
    code = folder / "code"
    main = code / "src/main/java/App.java"
    main.parent.mkdir(parents=True)
    main.write_text(_JAVA_MAIN)
    _without_links(tree)
    (code / "pom.xml").write_text(_POM.format(version=_JIB, tree=tree))
    home = bench.folder / "tools"
    home.mkdir(exist_ok=True)
    run(
        ["mvn", "-q", "-B", f"-Duser.home={home}", "compile", "jib:buildTar"],
        timeout=_TIMEOUT, cwd=code, env={"HOME": str(home)},
    )  # fmt: skip
    source = f"docker-archive:{code / 'target/jib-image.tar'}"
    target = f"oci:{folder / 'oci'}:{TAG}"
    run(["skopeo", "copy", "--quiet", source, target], timeout=_TIMEOUT)
    shutil.rmtree(code)


def _kaniko(_bench: Bench, tree: Path, folder: Path) -> None:
    """Absolute names, and absolute targets of hard links."""
    first = folder / "layer.tar"
    with tarfile.open(first, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(tree, "/", filter=_absolute)
        again = tarfile.TarInfo("/number-again")
        again.name, again.type, again.linkname = "/number-again", tarfile.LNKTYPE, "/number"
        tar.addfile(again)
    _pack(folder, (first,), {"Cmd": ["/usr/bin/true"]}, docker=True)


def _docker(_bench: Bench, tree: Path, folder: Path) -> None:
    """The classic builder's: null where there is nothing, names without a dot."""
    layers = []
    for part in ("usr", "number"):
        path = folder / f"{part}.tar"
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
            tar.add(tree / part, part)
        layers.append(path)
    config = {"Cmd": ["/usr/bin/true"], "Volumes": None, "Labels": None, "OnBuild": None,
              "Entrypoint": None, "ExposedPorts": None}  # fmt: skip
    _pack(folder, layers, config, docker=True)


def _buildkit(_bench: Bench, tree: Path, folder: Path) -> None:
    """An index with an attestation beside the image."""
    layer = folder / "layer.tar"
    with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(tree, ".")
    _pack(folder, (layer,), {"Cmd": ["/usr/bin/true"]}, docker=False)
    path = folder / "oci/index.json"
    entry = msgspec.json.decode(path.read_bytes())["manifests"][0]
    entry.pop("annotations")
    note = {"vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": entry["digest"]}  # fmt: skip
    inner = {"schemaVersion": 2, "mediaType": f"{_OCI}index.v1+json", "manifests": [
        entry | {"platform": {"architecture": "amd64", "os": "linux"}},
        entry | {"platform": {"architecture": "unknown", "os": "unknown"}, "annotations": note},
    ]}  # fmt: skip
    data = msgspec.json.encode(inner)
    _index(folder / "oci", [_blob(folder / "oci", data) | {"mediaType": f"{_OCI}index.v1+json"}])


_MAKERS: dict[str, Callable[[Bench, Path, Path], None]] = {
    "umoci": _umoci,
    "umoci with two layers": _umoci_layers,
    "buildah": _buildah,
    "buildah with two layers": _buildah_layers,
    "skopeo with zstd": _zstd,
    "ko": _ko,
    "jib": _jib,
    "kaniko": _kaniko,
    "docker's classic builder": _docker,
    "buildkit": _buildkit,
}


def _absolute(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.name = f"/{member.name.lstrip('/')}"
    return member


def _without_links(folder: Path) -> None:
    """Remove symbolic links: both tools follow them, also where they lead nowhere."""
    for path in list(folder.rglob("*")):
        if path.is_symlink():
            path.unlink()


def _pack(folder: Path, archives: Sequence[Path], run_as: object, *, docker: bool) -> None:
    """Write the layout of these layers, compressed with gzip."""
    packed: list[Path] = []
    for archive in archives:
        path = archive.with_suffix(".gz")
        with archive.open("rb") as source, path.open("wb") as raw:
            with gzip.GzipFile(
                filename="", fileobj=raw, mode="wb", compresslevel=6, mtime=0
            ) as out:
                shutil.copyfileobj(source, out, 1 << 20)
        packed.append(path)
    ids = [_sum(path) for path in archives]
    _layout(folder / "oci", packed, _config(ids, run_as), docker=docker)
    if docker:
        _layout(folder / "plain", packed, _config(ids, run_as), docker=False)
    for path in (*archives, *packed):
        path.unlink()


def _config(ids: Sequence[str], run_as: object) -> bytes:
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{one}" for one in ids]}
    whole = {"architecture": "amd64", "os": "linux", "config": run_as, "rootfs": rootfs}
    return msgspec.json.encode(whole)


def _layout(folder: Path, layers: Sequence[Path], config: bytes, *, docker: bool) -> None:
    (folder / "blobs/sha256").mkdir(parents=True)
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    kinds = (
        (f"{_DOCKER}distribution.manifest.v2+json", f"{_DOCKER}container.image.v1+json",
         f"{_DOCKER}image.rootfs.diff.tar.gzip")
        if docker else
        (f"{_OCI}manifest.v1+json", f"{_OCI}config.v1+json", f"{_OCI}layer.v1.tar+gzip")
    )  # fmt: skip
    entries = []
    for path in layers:
        shutil.copyfile(path, folder / "blobs/sha256" / _sum(path))
        size = path.stat().st_size
        entries.append({"mediaType": kinds[2], "digest": f"sha256:{_sum(path)}", "size": size})
    manifest = {"schemaVersion": 2, "mediaType": kinds[0], "layers": entries,
                "config": {"mediaType": kinds[1], **_blob(folder, config)}}  # fmt: skip
    data = msgspec.json.encode(manifest)
    _index(folder, [{"mediaType": kinds[0], **_blob(folder, data)}])


def _blob(folder: Path, data: bytes) -> dict[str, object]:
    digest = Digest.of(data)
    (folder / "blobs/sha256" / digest.hex).write_bytes(data)
    return {"digest": str(digest), "size": len(data)}


def _index(folder: Path, entries: Sequence[dict[str, object]]) -> None:
    named = [dict(one) for one in entries]
    named[0]["annotations"] = {"org.opencontainers.image.ref.name": TAG}
    index = {"schemaVersion": 2, "manifests": named}
    (folder / "index.json").write_bytes(msgspec.json.encode(index))


def _name(folder: Path) -> None:
    """Give the only image of a layout our name."""
    entries = msgspec.json.decode((folder / "index.json").read_bytes())["manifests"]
    _index(folder, entries[-1:])


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
