"""Images of one layer that is a real file system under a real hash tree, and what spoils them."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from machineos.build.recipe.filesystem import make_layer
from machineos.core.digest import Digest
from machineos.core.run import run
from machineos.core.word import RootHash
from machineos.document.rules.bootable import needed
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.atomfs import FilesystemKind, root_hash_annotations
from machineos.oci.model.documents import CONFIG, MANIFEST, Descriptor, Manifest
from waiting import PATIENCE

Change = Callable[[bytes, int], bytes]
FOLDERS = ("dev", "proc", "sys")


def tree(folder: Path, *more: str, without: tuple[str, ...] = ()) -> Path:
    """Make a folder with what every container needs, and something to read."""
    folder.mkdir(parents=True)
    for name in (*FOLDERS, "bin", *more):
        if name not in without:
            (folder / name).mkdir()
    (folder / "bin/x").write_bytes(Random(1).randbytes(1 << 16))
    (folder / "bin/x").chmod(0o755)
    return folder


class Packed(msgspec.Struct):
    """A layer: ``data`` bytes of a file system, then its tree."""

    content: bytes
    data: int
    root_hash: str
    media_type: str


def packed(folder: Path, kind: FilesystemKind = "squashfs") -> Packed:
    """Pack a folder."""
    with tempfile.TemporaryDirectory() as name:
        layer = make_layer(folder, Path(name) / "layer", kind=kind, epoch=0)
        content = layer.path.read_bytes()
    return Packed(content, layer.data_size, layer.root_hash, layer.media_type)


@functools.cache
def noted(note: str) -> Packed:
    """Return a layer that is good for everything, and differs from those of other notes."""
    with tempfile.TemporaryDirectory() as name:
        folder = tree(Path(name) / "tree")
        (folder / "bin/note").write_text(note)
        for name, part in (("hostfs", 0), ("bootkit", 0), ("bootkit", 1)):
            for one in needed(name, part):
                path = folder / one.path.removeprefix("/")
                path.parent.mkdir(parents=True, exist_ok=True)
                if one.kind == "folder":
                    path.mkdir(exist_ok=True)
                else:
                    path.write_bytes(b"")
        return packed(folder)


def put(
    repository: LayoutRepository,
    tag: str,
    *layers: Packed,
    run: dict[str, Any] | None = None,
    architecture: str = "amd64",
    annotations: dict[str, str] | None = None,
) -> Descriptor:
    """Store an image; ``annotations`` in the place of those of its root hashes."""
    entries = []
    for layer in layers:
        notes = root_hash_annotations(RootHash(layer.root_hash))
        entry = Descriptor(
            media_type=layer.media_type,
            digest=Digest.of(layer.content),
            size=len(layer.content),
            annotations=notes if annotations is None else annotations,
        )
        repository.put_blob(entry, (layer.content,))
        entries.append(entry)
    body = {
        "created": "2026-01-01T00:00:00Z",
        "architecture": architecture,
        "os": "linux",
        "config": {"Entrypoint": ["/bin/x"], **(run or {})},
        "rootfs": {"type": "layers", "diff_ids": [str(entry.digest) for entry in entries]},
    }
    data = msgspec.json.encode(body)
    config = Descriptor(media_type=CONFIG, digest=Digest.of(data), size=len(data))
    repository.put_blob(config, (data,))
    made = Manifest(media_type=MANIFEST, config=config, layers=tuple(entries))
    return repository.put_manifest(made.to_bytes(), media_type=MANIFEST, tag=tag)


def flipped(at: Callable[[int, int], int]) -> Change:
    """Change a byte; ``at`` says where, from the sizes of the data and of all."""

    def change(content: bytes, data: int) -> bytes:
        bad = bytearray(content)
        bad[at(data, len(content))] ^= 0xFF
        return bytes(bad)

    return change


def formatted(*options: str) -> Change:
    """Give the data a tree of another kind."""

    def change(content: bytes, data: int) -> bytes:
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "layer"
            path.write_bytes(content[:data])
            argv = [
                "veritysetup",
                "format",
                f"--hash-offset={data}",
                *options,
                str(path),
                str(path),
            ]
            run(argv, timeout=PATIENCE)
            return path.read_bytes()

    return change


SALT = 88  # in the superblock of a hash tree
# What somebody may do to a layer without another root hash: 12 kinds, and the 13th is below.
TAMPERED: dict[str, Change] = {
    "first data": flipped(lambda _data, _size: 8),
    "data": flipped(lambda data, _size: data // 2),
    "last data": flipped(lambda data, _size: data - 1),
    "salt": flipped(lambda data, _size: data + SALT),
    "tree": flipped(lambda data, _size: data + 4096 + 5),
    "superblock of the tree": flipped(lambda data, _size: data + 8),
    "cut": lambda content, _data: content[:-4096],
    "no tree": lambda content, data: content[:data],
    "one block more": lambda content, _data: content + bytes(4096),
    "small blocks": formatted("--data-block-size=1024", "--hash-block-size=1024"),
    "format 0": formatted("--format=0"),
    "sha512": formatted("--hash=sha512"),
}
FOREIGN = "foreign root hash"
KINDS: tuple[FilesystemKind, ...] = ("squashfs", "erofs")
VARIANTS = [(kind, name) for kind in KINDS for name in (*TAMPERED, FOREIGN)]


def tampered(layer: Packed, name: str) -> Packed:
    """Return a layer that was tampered with."""
    if name == FOREIGN:
        return msgspec.structs.replace(layer, root_hash="ab" * 32)
    return msgspec.structs.replace(layer, content=TAMPERED[name](layer.content, layer.data))
