"""A machine in memory that can be installed and can lose its power: a fake of ``install.Host``.

``FakeMachine`` is what outlives a power cut (``hardware`` has its disks and its firmware),
``FakeHost`` one boot of it: what is mounted, open, or in memory. It passes the same contract tests
as the real host (``contracts.install``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from uuid import UUID

import msgspec

from changed import replace
from fakes.hardware import Entry, Format, Hardware, Part, commit_of, signed_file
from fakes.persistence import Key, Loss
from machineos.core.digest import Digest
from machineos.core.secret import Secret
from machineos.document.product.artifacts import ROOT_HASH_SIGNATURE
from machineos.document.product.install import Target
from machineos.document.verify.published import Fetched
from machineos.errors import (
    ConflictError,
    DocumentError,
    Fault,
    MissingError,
    SignatureError,
    ToolError,
    VerificationError,
)
from machineos.host.disk.device import Disk, Partition
from machineos.host.disk.sfdisk import PartitionSpec
from machineos.host.disk.usage import Block, Mounted, Usage
from machineos.host.efi.efibootmgr import BootEntry
from machineos.install import fetch
from machineos.install.steps import Inspected, Memory, Signatures
from machineos.oci.graph.walk import walk
from machineos.oci.layout.listing import list_manifest
from machineos.oci.model.atomfs import Layer
from machineos.oci.model.documents import INDEX, Descriptor, parse_manifest
from machineos.oci.model.place import Place
from machineos.oci.model.repository import Registry
from machineos.state.volumes.steps import Kind
from machineos.trust.verify.chain import Publisher
from machineos.trust.verify.roothash import is_signature
from unit.document.conftest import NOW, MemoryRepository

MAPPED = Path("/dev/mapper/machine-config")


@dataclass
class FakeMachine(Hardware):
    """What a power cut does not change by itself. ``network`` are the registries by host; the files
    of the medium and of the initrd are in ``files``; ``small_disks`` are FATs by disk name."""

    files: dict[Path, bytes]
    keys: dict[str, Secret]
    publishers: frozenset[bytes]
    network: dict[str, Registry] = field(default_factory=dict)
    folders: dict[Path, Registry] = field(default_factory=dict)
    small_disks: dict[str, dict[str, str]] = field(default_factory=dict)
    memory: Memory = field(default_factory=lambda: Memory(1 << 40, 1 << 40))
    made: int = 0
    used: tuple[Mounted, ...] = ()

    def boot(self, *, say: Callable[[str], None] = lambda _text: None) -> FakeHost:
        """Start it: the initrd has left the files and keys, everything else in memory is new."""
        return FakeHost(self, say)

    def power_cut(self, loss: Loss) -> None:
        """The power fails now; every ``FakeHost`` of this machine is gone."""
        self.kept.power_cut(loss)

    def number(self) -> int:
        """Return a number that was not there before."""
        self.made += 1
        return self.made


class FakeHost:
    """One boot of a ``FakeMachine``: what is mounted, open, or in memory is this boot's own."""

    def __init__(
        self, machine: FakeMachine, say: Callable[[str], None] = lambda _text: None
    ) -> None:
        self.machine = machine
        self.kept = machine.kept
        self.said: list[str] = []
        self.seconds = 0.0
        self.keys = dict(machine.keys)
        self.trusted: list[bytes] = []
        self.memory_files: dict[Path, bytes] = dict(machine.files)
        self.staged: dict[Path, MemoryRepository] = {}
        self.mounted: dict[Path, tuple[Format, bool]] = {}
        self.images: dict[Path, dict[str, bytes]] = {}
        self.opened: Format | None = None
        self.hidden_partitions = 0
        self._say = say

    # -- looking

    def say(self, text: str) -> None:
        self.said.append(text)
        self._say(text)

    def now(self) -> datetime:
        return NOW

    def ticks(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def list_disks(self) -> tuple[Disk, ...]:
        return self.machine.disks

    def look_at_use(self, nodes: tuple[Path, ...]) -> Usage:
        """What somebody else has mounted."""
        blocks = tuple(
            Block(name, name, disk.name)
            for disk in self.machine.disks
            for name in (disk.name, *(f"{disk.name}{n}" for n in range(1, 9)))
        )
        return Usage(blocks, self.machine.used, (), {node.name: "" for node in nodes})

    def list_partitions(self) -> tuple[Partition, ...]:
        """Those that the kernel shows; the first few times it may not show all."""
        found = [
            Partition(disk.name, f"{disk.name}{number}", part.spec.label)
            for disk in self.machine.disks
            for number, part in enumerate(self.machine.table(disk.name), 1)
        ]
        if self.hidden_partitions:
            self.hidden_partitions -= 1
            found = found[:-1]
        return tuple(found)

    def read_label(self, device: Path) -> str:
        if device.name in self.machine.small_disks:
            return "inst-data"
        form = self._volume(device)[1]
        return form.label if form is not None and form.kind == "vfat" else ""

    def read_small_disk(
        self, device: Path, folder: Path, names: tuple[str, ...], *, limit: int
    ) -> tuple[str | None, ...]:
        texts = self.machine.small_disks.get(device.name)
        if texts is not None:
            files = {name: text.encode() for name, text in texts.items()}
        else:
            form = self._volume(device)[1]
            if form is None or form.kind != "vfat":
                raise ToolError(f"mount vfat {device} at {folder}: wrong fs type")
            files = self.machine.folder(form)
        for name in names:
            if len(files.get(name, b"")) > limit:
                raise DocumentError(name, [Fault("", 0, f"is larger than {limit} bytes")])
        found = {name: data.decode("ascii", "replace").strip() for name, data in files.items()}
        return tuple(found.get(name) for name in names)

    def read_file(self, path: Path, *, limit: int) -> bytes:
        if path not in self.memory_files:
            raise MissingError(f"{path} does not exist")
        if len(self.memory_files[path]) > limit:
            raise DocumentError(str(path), [Fault("", 0, f"is larger than {limit} bytes")])
        return self.memory_files[path]

    def read_key(self, name: str) -> Secret:
        if name not in self.keys:
            raise MissingError(f"the kernel holds no key {name}")
        return self.keys[name]

    def revoke_key(self, name: str) -> None:
        self.read_key(name)
        del self.keys[name]

    # -- fetching

    def resolve(self, place: Place) -> None:
        self._registry(place).repository(place.name).resolve(place.tag)

    def make_staging(self, folder: Path) -> Memory:
        return self.machine.memory

    def fetch_manifest(
        self, place: Place, *, ca_pem: bytes, at: datetime, product: UUID
    ) -> Fetched:
        registry = self._registry(place)
        return fetch.fetch_manifest(registry, place, ca_pem=ca_pem, at=at, product=product)

    def inspect_image(self, place: Place, target: Target, publisher: Publisher) -> Inspected:
        return fetch.inspect_image(self._registry(place), place, target, publisher)

    def fetch_image(self, place: Place, target: Target, signatures: Signatures, into: Path) -> None:
        layout = self.staged.setdefault(into, MemoryRepository())
        fetch.fetch_image(self._registry(place), place, target, signatures, layout)

    def _registry(self, place: Place) -> Registry:
        if place.at.folder is not None:
            return self.machine.folders[place.at.folder]
        return self.machine.network[place.at.host]

    # -- the disk

    def write_table(self, device: Path, partitions: tuple[PartitionSpec, ...]) -> None:
        disk = next((one for one in self.machine.disks if one.device == device), None)
        if disk is None:
            raise ToolError(f"sfdisk {device}: no such disk")
        old = self.machine.table(disk.name)
        parts = tuple(Part(spec, f"part {self.machine.number()}") for spec in partitions)
        key = ("table", disk.name)
        for before, part in zip(old, parts, strict=False):
            # A new table alone does not change what lies in its partitions.
            form = self.machine.format_of(before.guid)
            if form is not None:
                self.kept.live["format", part.guid] = form
                self.kept.disk["format", part.guid] = form
        self.kept.put(key, parts)
        self.kept.sync(key)
        for part in parts:
            if ("format", part.guid) in self.kept.live:
                self.kept.remove(("format", part.guid))
                self.kept.sync(("format", part.guid))

    def make_filesystem(self, kind: Kind, device: Path, *, label: str) -> None:
        self._format(device, Format(kind, label, self.machine.number()))

    def make_group(self, name: str, device: Path, *, key: Secret) -> None:
        self._format(device, Format("lvm", name, self.machine.number(), key))

    def mount(self, device: Path, folder: Path, kind: Kind, *, read_only: bool) -> None:
        form = self._volume(device)[1]
        if form is None or form.kind != kind:
            raise ToolError(f"mount {kind} {device} at {folder}: wrong fs type")
        if folder in self.mounted:
            raise ToolError(f"mount {kind} {device} at {folder}: busy")
        self.mounted[folder] = (form, read_only)

    def unmount(self, folder: Path) -> None:
        if self.images.pop(folder, None) is not None:
            return
        if folder not in self.mounted:
            raise ToolError(f"unmount {folder}: Invalid argument")
        form, _ = self.mounted.pop(folder)
        keys = {*self.kept.live, *self.kept.disk}
        self.kept.forget_cache([key for key in keys if key[:2] == ("file", str(form.number))])

    def format_config(self, key: Secret, device: Path, *, uuid: str) -> None:
        made = Format("luks", uuid, self.machine.number(), key)
        self._format(device, made)
        self._format(device, replace(made, proved=True))

    def unlock_config(self, key: Secret, device: Path) -> Path:
        form = self._volume(device)[1]
        if form is None or form.kind != "luks" or form.secret != key:
            raise VerificationError(f"{device}: does not open with this machine's key: no")
        self.opened = form
        return MAPPED

    def lock_config(self) -> None:
        if any(form is self._inner() for form, _ in self.mounted.values()):
            raise ToolError("cryptsetup close machine-config: busy")
        self.opened = None

    # -- what is on file systems

    def create_store(
        self, folder: Path, files: Mapping[str, bytes], *, message: str, seconds: int
    ) -> str:
        if self._read(folder / "manifest.git/commit") is not None:
            raise ConflictError(f"{folder} holds a configuration store already")
        for name, data in files.items():
            if "/" in name or name in {"", ".", ".."}:
                raise ValueError(f"{name!r} is not a file name")
            self._write_whole(folder / name, data)
        commit = commit_of(files)
        self._write_whole(folder / "manifest.git/commit", commit)
        return hashlib.sha1(commit + f"{message:s} {seconds:d}".encode()).hexdigest()

    def write_beside(self, folder: Path, name: str, data: Secret, *, mode: int) -> None:
        self._write_whole(folder / name, data.reveal())

    def store_image(
        self, source: Path, store: Path, image: Digest, *, tag: str
    ) -> tuple[Digest, ...]:
        damaged: list[Digest] = []
        root, *attached = _copied(self.staged[source], image)
        for graph in (root, *attached):
            for blob, data in graph.blobs:
                self._put_blob(store, blob, data, damaged)
        self._write_whole(store / "oci-layout", b'{"imageLayoutVersion":"1.0.0"}', again=False)
        for graph in attached:
            self._put_manifest(store, graph.root, graph.data, None, damaged)
        self._put_manifest(store, root.root, root.data, tag, damaged)
        return tuple(damaged)

    def mount_image(self, source: Path, image: Digest, signature: bytes, folder: Path) -> None:
        staged = self.staged[source]
        manifest = parse_manifest(staged.manifest(str(image))[1], name=str(image))
        layer = Layer.of(manifest.layers[0])
        known = map(_publisher, self.trusted)
        if not any(is_signature(signature, layer.root_hash, one) for one in known):
            raise SignatureError(f"layer {layer.digest}: no key that the kernel trusts signed it")
        self.images[folder] = {
            f"bootkit/{name}.efi": signed_file(name, str(layer.digest))
            for name in ("shim", "kernel")
        }

    def trust_publisher(self, certificate: bytes) -> None:
        if certificate not in self.machine.publishers:
            raise SignatureError("publisher: the kernel does not accept this certificate (ENOKEY)")
        self.trusted.append(certificate)

    # -- boot files and the firmware

    def copy_file(self, source: Path, root: Path, name: str) -> Digest:
        data = self._source(source)
        key = self._key(root / name)
        self.kept.put(key, data)
        self.kept.settle(key)
        self.kept.sync(key)
        return Digest.of(data)

    def read_back(self, root: Path, name: str) -> Digest:
        value = self.kept.disk.get(self._key(root / name, writing=False))
        if not isinstance(value, bytes):
            raise FileNotFoundError(root / name)
        return Digest.of(value)

    def list_entries(self) -> tuple[BootEntry, ...]:
        return tuple(
            BootEntry(number, True, entry.description) for number, entry in self.machine.entries()
        )

    def delete_entry(self, number: str) -> None:
        order = [one for one, _ in self.machine.entries()]
        if number not in order:
            raise ToolError(f"efibootmgr --quiet --bootnum: exit status 15: {number} not found")
        self.kept.set_at_once(("firmware", "order"), tuple(one for one in order if one != number))
        self.kept.set_at_once(("firmware", "entry", number), None)

    def create_entry(self, disk: Path, partition: int, description: str, loader: str) -> None:
        parts = self.machine.table(disk.name)
        if not 1 <= partition <= len(parts):
            raise ToolError(f"efibootmgr --quiet --create: {disk} has no partition {partition}")
        order = tuple(number for number, _ in self.machine.entries())
        number = next(f"{n:04X}" for n in range(0x10000) if f"{n:04X}" not in order)
        entry = Entry(description, parts[partition - 1].guid, loader)
        self.kept.set_at_once(("firmware", "entry", number), entry)
        self.kept.set_at_once(("firmware", "order"), (number, *order))

    # -- the model below

    def files_in(self, folder: Path) -> dict[str, bytes]:
        """Return the files below a folder of a mounted file system, for tests."""
        root, form = self._mount_of(folder)
        start = "" if folder == root else f"{folder.relative_to(root)}/"
        return {
            name.removeprefix(start): data
            for name, data in self.machine.folder(form).items()
            if name.startswith(start)
        }

    def damage(self, content: bytes) -> int:
        """Flip a bit in every file on the disk that holds ``content``; the kernel, which remembers
        what was written, does not see it. Return how many."""
        found = 0
        for key, value in self.kept.disk.items():
            if key[0] == "file" and isinstance(value, bytes) and content in value:
                at = value.index(content)
                self.kept.disk[key] = value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]
                found += 1
        return found

    def _volume(self, device: Path) -> tuple[str, Format | None]:
        """Return the name of what a device node shows, and what is on it."""
        if device == MAPPED:
            return (f"in {self.opened.number}", self._inner()) if self.opened else ("", None)
        for disk in self.machine.disks:
            for number, part in enumerate(self.machine.table(disk.name), 1):
                if device.name == f"{disk.name}{number}":
                    return part.guid, self.machine.format_of(part.guid)
        return "", None

    def _inner(self) -> Format | None:
        return self.machine.format_of(f"in {self.opened.number}") if self.opened else None

    def _format(self, device: Path, form: Format) -> None:
        volume, _ = self._volume(device)
        if not volume:
            raise ToolError(f"{device}: No such file or directory")
        self.kept.put(("format", volume), form)
        self.kept.sync(("format", volume))

    def _mount_of(self, path: Path) -> tuple[Path, Format]:
        # As text: tens of thousands of paths are looked at, and paths are slow to take apart.
        text = f"{path}/"
        above = [folder for folder in self.mounted if text.startswith(f"{folder}/")]
        if not above:
            raise FileNotFoundError(f"nothing is mounted above {path}")
        found = max(above, key=lambda folder: len(str(folder)))
        return found, self.mounted[found][0]

    def _key(self, path: Path, *, writing: bool = True) -> Key:
        root, form = self._mount_of(path)
        if writing and self.mounted[root][1]:
            raise OSError(30, "Read-only file system", str(path))
        return ("file", str(form.number), str(path)[len(str(root)) + 1 :] or ".")

    def _read(self, path: Path) -> bytes | None:
        value = self.kept.live.get(self._key(path, writing=False))
        return value if isinstance(value, bytes) else None

    def _source(self, path: Path) -> bytes:
        for folder, files in self.images.items():
            if path.is_relative_to(folder):
                return files[str(path.relative_to(folder))]
        if path not in self.memory_files:
            raise FileNotFoundError(path)
        return self.memory_files[path]

    def _write_whole(self, path: Path, data: bytes, *, again: bool = True) -> None:
        """Write as ``core.files.write_atomic`` does: a hidden file, synced, renamed, synced."""
        if not again and self._read(path) is not None:
            return
        final = self._key(path)
        hidden = (*final[:2], f"{final[2]}.hidden")
        self.kept.put(hidden, data)
        self.kept.settle(hidden)
        self.kept.rename(hidden, final)
        self.kept.sync(hidden, final)

    def _put_blob(self, store: Path, blob: Descriptor, data: bytes, damaged: list[Digest]) -> None:
        path = store / "blobs" / blob.digest.algorithm / blob.digest.hex
        there = self.kept.disk.get(self._key(path))
        if isinstance(there, bytes):
            if Digest.of(there) == blob.digest:
                return
            damaged.append(blob.digest)
        blob.digest.check(data, "blob")
        self._write_whole(path, data)

    def _put_manifest(
        self, store: Path, blob: Descriptor, data: bytes, tag: str | None, damaged: list[Digest]
    ) -> None:
        self._put_blob(store, blob, data, damaged)
        path = store / "index.json"
        old = msgspec.json.decode(self._read(path) or b'{"schemaVersion":2,"manifests":[]}')
        entries = list_manifest(old["manifests"], blob, tag)
        if entries != old["manifests"] or self._read(path) is None:
            body = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
            self._write_whole(path, msgspec.json.encode(body))


@dataclass(frozen=True)
class _Copied:
    """A manifest and its blobs, with what they hold."""

    root: Descriptor
    data: bytes
    blobs: tuple[tuple[Descriptor, bytes], ...]


@lru_cache(maxsize=64)
def _copied(staged: MemoryRepository, image: Digest) -> tuple[_Copied, ...]:
    """Read an image and the root hash signatures attached to it, once: what is staged stays."""
    attached = staged.referrers(image, artifact_type=ROOT_HASH_SIGNATURE)
    found = []
    for digest in (image, *(entry.digest for entry in attached)):
        graph = walk(staged, str(digest))
        root = graph.root
        blobs = tuple((blob, staged.blob(blob, limit=blob.size)) for blob in graph.blobs)
        found.append(_Copied(root.descriptor, root.data, blobs))
    return tuple(found)


def _publisher(der: bytes) -> Publisher:
    return Publisher(UUID(int=0), "", der, Digest.of(der))
