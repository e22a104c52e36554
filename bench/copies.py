"""Publishing and pulling a large image, against ``skopeo copy``.

The image is one squashfs layer with its dm-verity tree, of bytes that cannot be compressed.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from bench.measure import Sample, alternate, timed
from bench.registry import docker_registry
from bench.report import Check, Row, ratio_check
from bench.workspace import PROJECT, TOP

if TYPE_CHECKING:
    from pathlib import Path

    from bench.workspace import Bench

NAME = "machine/install:1.0.0"
_MEMORY_LIMIT = 80.0
_PIECE = 1 << 20
_RECIPE = "large:\n  from: {type: scratch}\n  imports: [{path: noise, dest: /}]\n"
_MANIFEST = """\
version: 1
product: default
update_type: {kind}
targets:
  - service_name: large
    source: "oci:{folder}:large"
    version: 1.0.0
    service_type: fs-only
    network: {{type: none}}
"""


def large_layout(bench: Bench, mebibytes: int, number: int = 0) -> Path:
    """Return a layout with the image ``large``, whose one file has that size; kept between runs.
    Each number is another image."""
    folder = bench.folder / (f"large-{mebibytes}-{number}" if number else f"large-{mebibytes}")
    if (folder / "index.json").is_file():
        return folder
    bench.say(f"  (making an image of {mebibytes} MiB)")
    work = bench.fresh("large-work")
    work.mkdir()
    with (work / "noise").open("wb") as file:
        for _ in range(mebibytes):
            file.write(os.urandom(_PIECE))
    (work / "stacker.yaml").write_text(_RECIPE)
    # By the command, which writes down that we packed it: what others packed is packed again.
    argv = ("--layout", f"oci:{folder}", "--cache", bench.folder / "large-cache")
    bench.command("mosb", "image", "build", "-f", work / "stacker.yaml", *argv)
    for name in ("large-work", "large-cache"):
        bench.fresh(name)
    return folder


def small_layout(bench: Bench) -> Path:
    """Return a layout with a small image ``large``."""
    return large_layout(bench, 1)


def publish(bench: Bench) -> Row:
    """Publish the image into an OCI layout."""
    size = 64 if bench.quick else 1024
    source = large_layout(bench, size)
    bench.keys()
    manifest = large_manifest(bench, source)

    def ours() -> Sample:
        out = bench.fresh("publish-ours")
        argv = bench.ours(
            "mosb", "manifest", "publish", "--skip-boot", "--project", PROJECT,
            "--repo", f"oci:{out}", "--name", NAME, manifest,
        )  # fmt: skip
        return timed(argv, log=bench.log, env=bench.env)

    def peer() -> Sample:
        out = bench.fresh("publish-peer")
        argv = ["skopeo", "copy", "--quiet", "--preserve-digests"]
        return timed([*argv, f"oci:{source}:large", f"oci:{out}:large"], log=bench.log)

    pairs = alternate(ours, peer, pairs=bench.pairs, warm=bench.warm, say=bench.say)
    for name in ("publish-ours", "publish-peer"):
        bench.fresh(name)
    return Row(
        "publish",
        f"publish a squashfs image of {size} MiB into an OCI layout",
        "`skopeo copy --preserve-digests` of the same",
        (ratio_check(pairs, 1.0),),
        pairs,
        (
            "ours also signs the root hash of the layer and the manifest, and stores the "
            "signatures and the certificate",
        ),
    )


def pull(bench: Bench) -> Row:
    """Pull the image from docker-registry and verify it."""
    size = 64 if bench.quick else 1024
    source = large_layout(bench, size)
    keyset, project = bench.keys()
    manifest = large_manifest(bench, source)
    ca = keyset.key("manifest-ca").cert_path
    with docker_registry(bench.fresh("registry")) as address:
        printed = bench.command(
            "mosb", "manifest", "publish", "--skip-boot", "--project", PROJECT, "--json",
            "--repo", address, "--name", NAME, manifest,
        )  # fmt: skip
        tag = json.loads(printed)["install"]["targets"][0]["digest"].removeprefix("sha256:")
        script = TOP / "bench/pull.py"

        def ours() -> Sample:
            out = bench.fresh("pull-ours")
            argv = bench.ours("python", script, address, NAME, ca, str(project.uuid), out)
            return timed(argv, log=bench.log, env=bench.env)

        def peer() -> Sample:
            out = bench.fresh("pull-peer")
            argv = ["skopeo", "copy", "--quiet", "--preserve-digests", "--src-tls-verify=false"]
            return timed([*argv, f"docker://{address}/mos:{tag}", f"oci:{out}:x"], log=bench.log)

        pairs = alternate(ours, peer, pairs=bench.pairs, warm=bench.warm, say=bench.say)
    for name in ("pull-ours", "pull-peer", "registry"):
        bench.fresh(name)
    memory = max(pair.ours.memory for pair in pairs)
    return Row(
        "pull",
        f"pull and verify an image of {size} MiB from docker-registry",
        "`skopeo copy` of the same",
        (
            ratio_check(pairs, 1.0),
            Check("memory", memory, _MEMORY_LIMIT, " MiB", f"{memory:.0f}"),
        ),
        pairs,
        (
            "ours verifies the signed manifest against its CA, the image by the digest that was "
            "signed, every byte of its blobs by digest, and the signature of the layer's root hash",
            "the largest of our runs counts for memory",
        ),
    )


def large_manifest(bench: Bench, source: Path) -> Path:
    """Return a manifest.yaml with the image ``large`` of the layout as its only target."""
    path = bench.folder / "large.yaml"
    path.write_text(_MANIFEST.format(kind="partial", folder=source))
    return path
