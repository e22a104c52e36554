"""What comes from elsewhere and goes elsewhere: images of other builders, a registry to push to,
and publishing again what is all there.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

from bench.copies import NAME, large_layout, large_manifest
from bench.measure import Sample, alternate, timed
from bench.origins import TAG, Origin, origins
from bench.registry import docker_registry
from bench.report import Check, Row, ratio_check
from bench.workspace import PROJECT
from machineos.core.run import run
from machineos.host.kernel.superblock import round_up
from machineos.host.pack import squashfs, verity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.workspace import Bench

_EPOCH = 1735689600
_MEMORY_LIMIT = 256.0
_SALT, _UUID = "5a" * 32, "5a5a5a5a-5a5a-4a5a-9a5a-5a5a5a5a5a5a"
_COUNT = 10
_HEAD = "version: 1\nproduct: default\nupdate_type: partial\ntargets:\n"
_TARGET = """\
  - service_name: app{number}
    source: "docker://{address}/apps/app{number}:1"
    version: 1.0.0
    service_type: fs-only
    network: {{type: none}}
"""


def origin(bench: Bench) -> Row:
    """Convert ten images of other origins."""
    images, missing = origins(bench)
    packing: list[float] = []

    def ours() -> Sample:
        return _sum(_ours(bench, image) for image in images)

    def peer() -> Sample:
        return _sum(_peer(bench, image, packing) for image in images)

    pairs = alternate(ours, peer, pairs=bench.pairs, warm=bench.warm, say=bench.say)
    for name in ("origin-ours", "origin-cache", "origin-bundle", "origin-image"):
        bench.fresh(name)
    more = max(pair.ours.memory for pair in pairs) - max(packing)
    return Row(
        "origins",
        f"convert {len(images)} images of other origins",
        "`umoci unpack` + `mksquashfs` with the same options + `veritysetup format`",
        (
            ratio_check(pairs, 1.0),
            Check("memory beyond mksquashfs's own", more, _MEMORY_LIMIT, " MiB", f"{more:.0f}"),
        ),
        pairs,
        (
            f"made by, or in the shape of: {', '.join(image.name for image in images)}",
            "umoci reads neither zstd nor Docker's manifests nor an index in a layout: it gets the "
            "same images as OCI manifests with gzip, copied before the clock runs",
            *(f"not made here: {text}" for text in missing),
        ),
    )


def push(bench: Bench) -> Row:
    """Push a large image to docker-registry."""
    size = 64 if bench.quick else 1024
    source = large_layout(bench, size)
    bench.keys()
    manifest = large_manifest(bench, source)

    def ours() -> Sample:
        with docker_registry(bench.fresh("push-registry")) as address:
            argv = bench.ours(
                "mosb", "manifest", "publish", "--skip-boot", "--project", PROJECT,
                "--repo", address, "--name", NAME, manifest,
            )  # fmt: skip
            return timed(argv, log=bench.log, env=bench.env)

    def peer() -> Sample:
        with docker_registry(bench.fresh("push-registry")) as address:
            argv = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false"]
            target = f"docker://{address}/mos:large"
            return timed([*argv, f"oci:{source}:large", target], log=bench.log)

    pairs = alternate(ours, peer, pairs=bench.pairs, warm=bench.warm, say=bench.say)
    bench.fresh("push-registry")
    return Row(
        "push",
        f"push an image of {size} MiB to docker-registry",
        "`skopeo copy` of the same",
        (ratio_check(pairs, 0.6),),
        pairs,
        ("ours also signs, and pushes the signatures, the certificate and the manifest",),
    )


def again(bench: Bench) -> Row:
    """Publish a manifest whose ten images are all there."""
    bench.keys()
    manifest = bench.folder / "again.yaml"
    with docker_registry(bench.fresh("again-registry")) as address:
        copy = ["skopeo", "copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false"]
        names = [f"docker://{address}/apps/app{number}:1" for number in range(_COUNT)]
        for number, name in enumerate(names):
            run([*copy, f"oci:{large_layout(bench, 1, number)}:large", name], timeout=600.0)
        targets = (_TARGET.format(number=number, address=address) for number in range(_COUNT))
        manifest.write_text(_HEAD + "".join(targets))
        argv = bench.ours(
            "mosb", "manifest", "publish", "--skip-boot", "--project", PROJECT,
            "--repo", address, "--name", NAME, manifest,
        )  # fmt: skip

        def ours() -> Sample:
            return timed(argv, log=bench.log, env=bench.env)

        def peer() -> Sample:
            inspect = ["skopeo", "inspect", "--tls-verify=false"]
            return _sum(timed([*inspect, name], log=bench.log, settle=False) for name in names)

        ours()  # now they are all there
        pairs = alternate(ours, peer, pairs=bench.pairs, warm=bench.warm, say=bench.say)
    bench.fresh("again-registry")
    return Row(
        "again",
        f"publish a manifest whose {_COUNT} images are all there, in docker-registry",
        f"{_COUNT} times `skopeo inspect`",
        (ratio_check(pairs, 1.0),),
        pairs,
    )


def _ours(bench: Bench, image: Origin) -> Sample:
    out = bench.fresh("origin-ours")
    bench.fresh("origin-cache")
    argv = bench.ours(
        "mosb", "image", "convert", f"oci:{image.layout}:{TAG}", "--layout", f"oci:{out}",
        "--tag", TAG, "--cache", bench.folder / "origin-cache",
    )  # fmt: skip
    return timed(argv, log=bench.log, env=bench.env)


def _peer(bench: Bench, image: Origin, packing: list[float]) -> Sample:
    bundle, packed = bench.fresh("origin-bundle"), bench.fresh("origin-image")
    unpack = ["umoci", "unpack", "--image", f"{image.plain}:{TAG}", str(bundle)]
    first = timed(unpack, log=bench.log)
    root = bundle / "rootfs"
    make = squashfs.argv_make(root, packed, epoch=_EPOCH, keep_times=True, owners=True)
    second = timed(make, log=bench.log, settle=False)
    packing.append(second.memory)
    whole = round_up(packed.stat().st_size)
    tree = verity.format_command(packed, data_size=whole, salt=_SALT, uuid=_UUID)
    return first.then(second).then(timed(tree.argv, log=bench.log, settle=False))


def _sum(samples: Iterable[Sample]) -> Sample:
    return reduce(Sample.then, samples)
