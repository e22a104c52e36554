"""The hardware of a machine in memory: disks, firmware, and what would start on it.

Disks with partition tables, file systems with files, a LUKS volume, a volume group, boot entries:
values in a ``Persistence``, so that the power can fail at any of them. ``Hardware.installed`` says
which document the machine would run, as firmware, shim and initrd would find out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from fakes.persistence import Persistence
from machineos.core.digest import Digest
from machineos.core.secret import Secret
from machineos.document.state.system import SYSTEM_FILE, document_files, parse_system
from machineos.host.disk.device import Disk
from machineos.host.disk.sfdisk import ESP, PartitionSpec
from machineos.oci.model.documents import parse_manifest

HOST_CA_FILES = ("host-ca.key", "host-ca.pem", "host-ca.p7s")
BESIDE = (*HOST_CA_FILES, "storage.pub")


@dataclass(frozen=True)
class Part:
    """One partition: its place in the table has a name of its own, which no other ever has."""

    spec: PartitionSpec
    guid: str


@dataclass(frozen=True)
class Format:
    """What is on a partition: ``kind`` is a file system, luks or lvm. ``number`` tells one making
    from the next; ``secret`` opens a luks volume, and ``proved`` says that its header is ours."""

    kind: str
    label: str
    number: int = 0
    secret: Secret | None = None
    proved: bool = False


@dataclass(frozen=True)
class Entry:
    """A boot entry: a partition by its name of its own, and a path on it."""

    description: str
    guid: str
    loader: str


@dataclass
class Hardware:
    """What is on the disks and in the firmware."""

    disks: tuple[Disk, ...]
    kept: Persistence = field(default_factory=Persistence, kw_only=True)

    def table(self, disk: str) -> tuple[Part, ...]:
        """Return the partitions of a disk, none when there is no table that can be read."""
        table = self.kept.live.get(("table", disk), ())
        return table if isinstance(table, tuple) else ()

    def format_of(self, volume: str) -> Format | None:
        """Return what is on a partition (its guid) or in the opened volume."""
        found = self.kept.live.get(("format", volume))
        return found if isinstance(found, Format) else None

    def folder(self, form: Format) -> dict[str, bytes]:
        """Return the files of a file system."""
        return {
            key[2]: value
            for key, value in self.kept.live.items()
            if key[:2] == ("file", str(form.number)) and isinstance(value, bytes)
        }

    def entries(self) -> tuple[tuple[str, Entry], ...]:
        """Return the boot entries by number, in the order of the firmware."""
        order = self.kept.live.get(("firmware", "order"), ())
        assert isinstance(order, tuple)
        found = []
        for number in order:
            entry = self.kept.live.get(("firmware", "entry", number))
            if isinstance(entry, Entry):
                found.append((number, entry))
        return tuple(found)

    def installed(self, key: Secret, *, disk: str) -> str:
        """Return the document (its sha256) that this machine would run, empty when the firmware
        finds nothing that it may start.

        AssertionError: a boot entry points to something that is not whole, or what would be started
        would not run.
        """
        started = self._started(disk)
        if started is None:
            return ""
        parts = {part.spec.label: part.guid for part in self.table(disk)}
        config = self.format_of(parts["machine-config"])
        assert config is not None, "no configuration volume"
        assert config.kind == "luks"
        assert config.proved, "the header of the configuration volume is not proved"
        assert config.secret == key
        inner = self.format_of(f"in {config.number}")
        assert inner is not None, "the configuration volume has no file system"
        files = self.folder(inner)
        commit = files.get("manifest.git/commit")
        assert commit is not None, "the store has no commit"
        assert set(BESIDE) < set(files)
        plain = {n: d for n, d in files.items() if "/" not in n and n not in BESIDE}
        assert commit == commit_of(plain)
        (sha256,) = parse_system(files[SYSTEM_FILE]).manifests
        assert {SYSTEM_FILE, *document_files(sha256)} == set(plain)
        store = self.format_of(parts["machine-store"])
        assert store is not None, "no store"
        bootkit = self._check_store(self.folder(store), files[f"{sha256}.json"])
        assert started == bootkit, "the boot files are not those of this document"
        data = self.format_of(parts["machine-data"])
        assert data is not None, "nothing on the partition for data"
        assert data.kind == "integrity"
        group = self.format_of(f"in {data.number}")
        assert group is not None, "no volume group"
        assert (group.kind, group.label) == ("lvm", "machine-data")
        log = self.format_of(f"in {group.number} machine-log")
        assert log is not None, "no log volume"
        assert log.secret == Secret(files["storage.pub"])
        return sha256

    def _started(self, disk: str) -> str | None:
        """Return the digest of the bootkit layer that the firmware and shim start from ``disk``."""
        parts = {part.guid: part for part in self.table(disk)}
        for _, entry in self.entries():
            if entry.description.startswith("machineos-") and entry.guid in parts:
                path = entry.loader.strip("\\").replace("\\", "/")
                found = self._loads(entry.guid, path)
                assert found, f"entry {entry.description} points to what is not whole"
                return found
        for part in parts.values():
            if part.spec.kind == ESP:
                return self._loads(part.guid, "EFI/BOOT/BOOTX64.EFI")
        return None

    def _loads(self, guid: str, loader: str) -> str | None:
        """Return whose kernel the shim at ``loader`` starts: both signed, or nothing starts."""
        form = self.format_of(guid)
        if form is None or form.kind != "vfat":
            return None
        files = self.folder(form)
        shim = _signed(files.get(loader, b""), "shim")
        kernel = _signed(files.get(str(Path(loader).parent / "grubx64.efi"), b""), "kernel")
        return kernel if shim == kernel else None

    def _check_store(self, files: dict[str, bytes], document: bytes) -> str:
        """Check that every image that the document names is whole; return the bootkit's layer."""
        index = msgspec.json.decode(files["mos/index.json"])
        assert files["mos/oci-layout"]
        tags = {
            entry["annotations"]["org.opencontainers.image.ref.name"]: entry["digest"]
            for entry in index["manifests"]
            if "annotations" in entry
        }
        bootkit = ""
        for target in msgspec.json.decode(document)["targets"]:
            digest = Digest.parse(target["digest"])
            assert tags[digest.hex] == str(digest)
            manifest = parse_manifest(_blob(files, digest), name="x")
            for blob in (manifest.config, *manifest.layers):
                _blob(files, blob.digest)
            if target["service_name"] == "bootkit":
                bootkit = str(manifest.layers[0].digest)
        for entry in index["manifests"]:
            artifact = parse_manifest(_blob(files, Digest.parse(entry["digest"])), name="x")
            for layer in artifact.layers:
                _blob(files, layer.digest)
        return bootkit


def signed_file(name: str, layer: str) -> bytes:
    """Return a boot file of a bootkit that a fake firmware can tell from a torn one."""
    body = f"{name} of {layer} ".encode() * 20
    return body + hashlib.sha256(body).digest()


def _signed(data: bytes, name: str) -> str | None:
    """Return the layer that a boot file is of, None when it is not whole."""
    body, mark = data[:-32], data[-32:]
    if hashlib.sha256(body).digest() != mark or not body.startswith(f"{name} of ".encode()):
        return None
    return body.decode().split()[2]


def commit_of(files: Mapping[str, bytes]) -> bytes:
    """Return what stands for the objects of a commit."""
    lines = [f"{name} {Digest.of(data)}\n" for name, data in sorted(files.items())]
    return "".join(lines).encode()


def _blob(files: Mapping[str, bytes], digest: Digest) -> bytes:
    data = files[f"mos/blobs/{digest.algorithm}/{digest.hex}"]
    digest.check(data, str(digest))
    return data
