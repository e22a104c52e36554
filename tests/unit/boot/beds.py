"""Beds for the contract of the boot's host: of the fake, and of what this machine really has."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast
from uuid import UUID

from cryptography.hazmat.primitives.serialization import Encoding

from contracts.beds import Kind, Layer
from contracts.real import RealBed
from fakes.boot import FakeFirst, FakeMachine
from fakes.bootparts.disks import Disk, Volume, luks
from fakes.bootparts.files import Entry, Tree, blobs
from fakes.swtpm import SoftwareTpm
from machineos.boot.host import Host
from machineos.core.run import run
from machineos.core.secret import Secret
from machineos.document.between.bootsettings import parse_settings
from machineos.document.product.install import Target
from machineos.host.disk.luks import LuksVolume, format_command
from machineos.host.kernel.flags import Flag
from machineos.host.tpm.transport import SocketTransport
from machineos.oci.layout.folder import LayoutRegistry, LayoutRepository
from machineos.oci.model import atomfs
from machineos.oci.model.documents import Descriptor
from machineos.state.volumes.config import write_record
from machineos.state.volumes.header import passphrase
from machineos.trust.measure.tpm_policy import SignedPolicy
from machineos.trust.verify.chain import Publisher
from unit.boot.worlds import (
    KEY,
    anchors,
    ca_pem,
    content,
    foreign_content,
    layer_of,
    machine,
    signer,
    store_of,
)
from unit.document.conftest import MemoryRepository
from unit.trust.sealing import ADMIN, LUKS, NOTHING_MORE, SECURE_BOOT, both
from vectors.certificates import PRODUCT, key, publisher
from waiting import PATIENCE

By = Literal["product", "stranger"]


# -- the fake


class FakeBed:
    """A fake machine that is on, with a folder in its memory."""

    def __init__(self, made: FakeMachine | None = None) -> None:
        self.running = (made or machine()).power_on()
        first = FakeFirst(self.running)
        first.mount_pseudo()
        first.load_drivers(parse_settings(first.read_settings()))
        self.folder = Path("/run/contract")
        self.running.make_folder(self.folder, 0o755)

    @property
    def host(self) -> Host:
        return cast("Host", self.running)

    def plant(
        self, path: Path, data: bytes = b"", *, mode: int = 0o644, kind: Kind = "file"
    ) -> None:
        self.running.names.put(path, Entry(kind, data, mode))

    def look(self, path: Path) -> tuple[bytes, int]:
        found = self.running.names.entry(path)
        assert found is not None
        return found.data, found.mode

    def flags(self, target: Path) -> Flag | None:
        found = self.running.names.at(target)
        return None if found is None else found.flags


class FakeDiskBed(FakeBed):
    """The disks that the contract speaks of."""

    def __init__(self) -> None:
        parts = [
            ("vda1", "esp", Volume("vfat", Tree())),
            ("vda2", "machine-config", Volume("ext4", Tree())),
            ("vda3", "", Volume("ext4", Tree())),
        ]
        disks = [Disk("vda", [*parts]), Disk("vdb"), Disk("sr0", optical=True)]
        super().__init__(machine(disks=disks))

    def labelled(self, kind: str, label: str) -> Path:
        self.running.machine.disks.append(Disk(f"x{kind}", whole=Volume(kind, Tree(), label)))
        return Path("/dev") / f"x{kind}"

    def luks(self, key: bytes) -> Path:
        device = luks("a volume", key, Volume("ext4", Tree()))
        self.running.machine.disks.append(Disk("y", [("y1", "machine-config", device)]))
        return Path("/dev/y1")


class FakeKernelBed(FakeBed):
    """A machine that has handed over: its kernel enforces."""

    def __init__(self) -> None:
        made = machine()
        self.running = made.boot().host
        self.folder = Path("/sysroot/run/contract")
        self.running.make_folder(self.folder, 0o755)

    def layer(self, which: Literal["good", "stranger", "changed"]) -> Layer:
        described = atomfs.Layer.of(layer_of("bootkit", self.running.machine))
        data = blobs(store_of(self.running.machine))[described.digest]
        if which == "changed":
            data = data.replace(b"modules", b"modulez")
        blob = self.folder / which
        self.plant(blob, data)
        label = "stranger" if which == "stranger" else "publisher"
        signature = signer(PRODUCT, label).sign_root_hash(described.root_hash)
        return Layer(blob, described, signature)

    def certificate(self, which: Literal["publisher", "stranger"]) -> bytes:
        if which == "stranger":
            return publisher().but(issuer_key=key("stranger")).build().public_bytes(Encoding.DER)
        return content().fetched.verified.publisher.certificate_der

    def device(self) -> Path:
        device = luks("a volume", KEY, Volume("ext4", Tree()))
        self.running.machine.disks.append(Disk("y", [("y1", "", device)]))
        return Path("/dev/y1")

    def policy(self) -> bytes:
        return anchors().ipe_boot

    def secret(self, description: str) -> bytes:
        return self.running.kernel.keyring[description]


class FakeTpmBed:
    """A blank TPM."""

    def __init__(self) -> None:
        self.running = machine("provision").power_on()
        self.reset()

    @property
    def host(self) -> Host:
        return cast("Host", self.running)

    def reset(self, *, image: bytes = b"this image") -> None:
        tpm = self.running.machine.tpm
        tpm.power_cycle()
        tpm.extend(7, SECURE_BOOT)
        tpm.extend(11, event(image))

    def extend(self, pcr: int) -> None:
        self.running.machine.tpm.extend(pcr, event(b"more"))

    def policies(self, *, version: str = "0001", by: By = "product") -> tuple[SignedPolicy, ...]:
        return policies(version, by)

    @property
    def policy_keys(self) -> tuple[bytes, bytes]:
        return LUKS, ADMIN


class FakeStoreBed:
    """A machine with its store and a medium mounted."""

    layouts, store = Path("/run/medium/oci"), Path("/run/medium/oci/mos")

    def __init__(self) -> None:
        bed = FakeBed(machine("install"))
        self.running = bed.running
        for disk in self.running.machine.disks:
            disk.at = 0.0
        self.running.load_modules(("isofs.ko",))
        self.running.make_folder(Path("/run/medium"), 0o755)
        self.running.mount(Path("/dev/sr0"), Path("/run/medium"), "iso9660", Flag.RDONLY)

    @property
    def host(self) -> Host:
        return cast("Host", self.running)

    def spoil(self) -> None:
        repository = store_of(self.running.machine)
        blobs(repository)[content().install.targets[0].image] += b" "


# -- what this machine has


class RealDiskBed(RealBed):
    """Files in the place of devices, and a folder in the place of sysfs."""

    def __init__(self, folder: Path) -> None:
        sysfs = folder / "class"
        sysfs.mkdir()
        super().__init__(folder, sysfs=sysfs)
        self._device("pci/vda", DEVTYPE="disk", size="1000")
        for number, label in (("1", "esp"), ("2", "machine-config"), ("3", "")):
            named = {"PARTNAME": label} if label else {}
            self._device(f"pci/vda/vda{number}", DEVTYPE="partition", **named)
        self._device("usb/vdb", DEVTYPE="disk", size="0")
        self._device("pci/sr0", DEVTYPE="disk", size="2")
        self._device("virtual/block/loop0", DEVTYPE="disk", size="2")

    def _device(self, path: str, *, size: str = "", **uevent: str) -> None:
        folder = self.folder / "devices" / path
        folder.mkdir(parents=True)
        lines = "".join(f"{name}={value}\n" for name, value in uevent.items())
        (folder / "uevent").write_text(lines)
        if size:
            (folder / "size").write_text(f"{size}\n")
        (self.folder / "class" / folder.name).symlink_to(folder)

    def labelled(self, kind: str, label: str) -> Path:
        """The few bytes that tell which file system it is; the kernel's parsers see nothing."""
        data = bytearray(0x9000)
        if kind == "vfat":
            data[0x52:0x55], data[0x47:0x52] = b"FAT", label.encode().ljust(11)
            data[510:512] = b"\x55\xaa"
        elif kind == "iso9660":
            data[0x8001:0x8006] = b"CD001"
            data[0x8028:0x8048] = label.encode().ljust(32)
        path = self.folder / f"disk of {kind}"
        path.write_bytes(bytes(data))
        return path

    def luks(self, key: bytes) -> Path:
        """As the installer makes it, but for the integrity, which needs device-mapper."""
        path = self.folder / "luks"
        with path.open("wb") as file:
            file.truncate(16 << 20)
        uuid = "0b0f8dd4-37d6-4b15-8b9e-3f1d8a1c7a11"
        command = format_command(LuksVolume(path, "x"), uuid=uuid)
        argv = [word for word in command.argv if not word.startswith("--integrity")]
        run(argv, input=passphrase(Secret(key)).reveal(), timeout=PATIENCE)
        write_record(Secret(key), path)
        return path


class RealTpmBed(RealBed):
    """A software TPM, wiped."""

    def __init__(self, folder: Path, chip: SoftwareTpm) -> None:
        super().__init__(folder, tpm=lambda: SocketTransport(chip.data))
        self._chip = chip
        chip.wipe()
        self.reset()

    def reset(self, *, image: bytes = b"this image") -> None:
        self._chip.power_cycle()
        with self._chip.open() as tpm:
            tpm.pcr_extend(7, SECURE_BOOT)
            tpm.pcr_extend(11, event(image))

    def extend(self, pcr: int) -> None:
        """From beside: the chip serves one connection at a time, so through the open one."""
        sealed = self.host._sealed
        if sealed is not None:
            sealed._tpm.pcr_extend(pcr, event(b"more"))
            return
        with self._chip.open() as tpm:
            tpm.pcr_extend(pcr, event(b"more"))

    def policies(self, *, version: str = "0001", by: By = "product") -> tuple[SignedPolicy, ...]:
        return policies(version, by)

    @property
    def policy_keys(self) -> tuple[bytes, bytes]:
        return LUKS, ADMIN


class RealStoreBed(RealBed):
    """Layouts in a folder, as a medium has them."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.layouts, self.store = folder / "oci", folder / "oci/mos"
        registry = LayoutRegistry(self.layouts, writable=True)
        for name, repository in content().repositories.items():
            copy_repository(repository, registry.repository(name))

    def spoil(self) -> None:
        path = self.store / "blobs/sha256" / content().install.targets[0].image.hex
        path.write_bytes(path.read_bytes() + b" ")


def copy_repository(source: MemoryRepository, target: LayoutRepository) -> None:
    """Write what a repository in memory holds into a layout."""
    for digest, data in source._blobs.items():
        if digest not in source._manifests:
            target.put_blob(Descriptor(media_type="", digest=digest, size=len(data)), [data])
    tags = {digest: tag for tag, digest in source._tags.items()}
    for digest, descriptor in source._manifests.items():
        target.put_manifest(
            source._blobs[digest], media_type=descriptor.media_type, tag=tags.get(digest)
        )


# -- what both have


def event(text: bytes) -> bytes:
    """Return what is measured of it."""
    return hashlib.sha256(text).digest()


def policies(version: str, by: By) -> tuple[SignedPolicy, ...]:
    """Return the policies of the image that ``reset`` measures."""
    label = "tpmpol-luks" if by == "product" else "stranger"
    uki = event(b"this image")
    return both(SECURE_BOOT, uki, version, by=label, pcr12=bytes(32), more=NOTHING_MORE)


@dataclass(frozen=True)
class PublishedBed:
    """What was published, beside either host."""

    bed: FakeStoreBed | RealStoreBed

    @property
    def host(self) -> Host:
        return self.bed.host

    @property
    def store(self) -> Path:
        return self.bed.store

    @property
    def layouts(self) -> Path:
        return self.bed.layouts

    @property
    def target(self) -> Target:
        return content().install.targets[0]

    @property
    def publisher(self) -> Publisher:
        return content().fetched.verified.publisher

    @property
    def stranger(self) -> Publisher:
        return foreign_content().fetched.verified.publisher

    @property
    def ca_pem(self) -> bytes:
        return ca_pem()

    @property
    def product(self) -> UUID:
        return PRODUCT

    def spoil(self) -> None:
        self.bed.spoil()
