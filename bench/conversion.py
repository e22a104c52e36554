"""Converting a tar image to squashfs with dm-verity, against the two bare programs."""

from __future__ import annotations

import hashlib
import tarfile
from typing import TYPE_CHECKING

import msgspec

from bench import debian
from bench.measure import Sample, alternate, timed
from bench.report import Row, ratio_check
from bench.workspace import TOP
from machineos.core.digest import Digest
from machineos.core.run import run
from machineos.host.kernel.superblock import round_up
from machineos.host.pack import squashfs, verity
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.documents import CONFIG, MANIFEST, Descriptor, Manifest

if TYPE_CHECKING:
    from pathlib import Path

    from bench.workspace import Bench

_TAR = "application/vnd.oci.image.layer.v1.tar"
_EPOCH = 1735689600
_PIECE = 1 << 20
_SALT, _UUID = "5a" * 32, "5a5a5a5a-5a5a-4a5a-9a5a-5a5a5a5a5a5a"


def convert(bench: Bench) -> Row:
    """Convert a Debian root: one tar layer, not compressed."""
    archive, tree = small(bench) if bench.quick else (debian.archive(bench), debian.tree(bench))
    layout = _image(bench, archive)
    size = archive.stat().st_size / 1e6

    def ours() -> Sample:
        out = bench.fresh("convert-ours")
        argv = bench.ours(
            "mosb", "image", "convert", f"oci:{layout}:root", "--layout", f"oci:{out}",
            "--tag", "root", "--cache", bench.folder / "convert-cache",
        )  # fmt: skip
        return timed(argv, log=bench.log, env=bench.env)

    def peer() -> Sample:
        image = bench.fresh("convert-peer")
        pack = squashfs.argv_make(tree, image, epoch=_EPOCH, keep_times=True, owners=True)
        packed = timed(pack, log=bench.log)
        whole = round_up(image.stat().st_size)
        command = verity.format_command(image, data_size=whole, salt=_SALT, uuid=_UUID)
        return packed.then(timed(command.argv, log=bench.log))

    pairs = alternate(ours, peer, pairs=bench.pairs, warm=bench.warm, say=bench.say)
    for name in ("convert-ours", "convert-peer", "convert-cache", "convert-source"):
        bench.fresh(name)
    return Row(
        "convert",
        f"convert a tar image of {size:.0f} MB to squashfs + verity",
        "bare `mksquashfs` of the unpacked tree + `veritysetup format`",
        (ratio_check(pairs, 1.3),),
        pairs,
        (
            "the same options of mksquashfs and veritysetup on both sides; theirs starts with the "
            "tree unpacked, ours checks both digests of the tar, vets and unpacks its members, and "
            "hashes and stores the layer",
        ),
        {"tar_bytes": archive.stat().st_size},
    )


def _image(bench: Bench, archive: Path) -> Path:
    """Return a layout with the image ``root``: the archive as its only layer."""
    folder = bench.fresh("convert-source")
    store = LayoutRepository(folder, writable=True)
    with archive.open("rb") as file:
        digest = Digest("sha256", hashlib.file_digest(file, "sha256").hexdigest())
        layer = Descriptor(media_type=_TAR, digest=digest, size=file.tell())
        file.seek(0)
        store.put_blob(layer, iter(lambda: file.read(_PIECE), b""))
    config = msgspec.json.encode(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [str(digest)]},
        }
    )
    entry = Descriptor(media_type=CONFIG, digest=Digest.of(config), size=len(config))
    store.put_blob(entry, (config,))
    manifest = Manifest(media_type=MANIFEST, config=entry, layers=(layer,))
    store.put_manifest(manifest.to_bytes(), media_type=MANIFEST, tag="root")
    return folder


def small(bench: Bench) -> tuple[Path, Path]:
    """Return an archive of our own source, and the tree in it."""
    tree, archive = bench.fresh("small"), bench.fresh("small.tar")
    tree.mkdir()
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted((TOP / "src").rglob("*.py")):
            tar.add(path, path.relative_to(TOP).as_posix())
    run(["tar", "-C", tree, "-xf", archive], timeout=60.0)
    return archive, tree
