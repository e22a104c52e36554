"""A machine in memory that boots with the real code: disks, TPM, kernel, console.

It is faithful enough that an attack fails for the right reason: headers and documents are verified,
images opened by signed root hashes. It passes the contract of the real host (``contracts.boot``).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast
from uuid import UUID

from cryptography import x509

from fakes.bootparts.cutting import Cutting
from fakes.bootparts.cutting import PowerCutError as PowerCutError
from fakes.bootparts.disks import Disk, Luks, Volume, opened
from fakes.bootparts.ends import EndError as EndError
from fakes.bootparts.ends import HandedOverError as HandedOverError
from fakes.bootparts.ends import PoweredOffError as PoweredOffError
from fakes.bootparts.ends import RestartedError as RestartedError
from fakes.bootparts.files import Entry, Mounted, Namespace, Tree, image_tree
from fakes.bootparts.kernel import FakeKernel
from fakes.bootparts.tpm import FakeTpm, never
from fakes.bootparts.volumes import OpenStorage, Storage
from machineos.boot.aliases import next_driver
from machineos.boot.facts import HostCa
from machineos.boot.host import Host
from machineos.boot.main import start
from machineos.boot.steps import ProvisionTpm
from machineos.boot.volumesteps import Shown
from machineos.core.digest import Digest
from machineos.core.secret import Secret
from machineos.document.between.bootsettings import (
    ANCHOR_FILES,
    FOLDER,
    Anchors,
    Settings,
    parse_settings,
)
from machineos.document.model.install import Target
from machineos.document.verify.images import root_hash_signatures, verify_target
from machineos.document.verify.published import VerifiedInstall, fetch_verified
from machineos.errors import MissingError, ToolError
from machineos.host.disk.device import Partition
from machineos.host.kernel.flags import Flag
from machineos.oci.model.atomfs import Layer
from machineos.oci.model.documents import Manifest
from machineos.trust.measure.tpm_policy import Phase, SignedPolicy
from machineos.trust.seal.hostca import make_host_ca
from machineos.trust.seal.layout import Index
from machineos.trust.seal.tpmkind import Maker
from machineos.trust.verify.chain import DeviceIdentity, Publisher
from unit.document.conftest import MemoryRepository

MAPPER = Path("/dev/mapper")
POLICY_FILE = Path("/.extra/tpm2-pcr-signature.json")
DMI = "class/dmi/id/product_serial"
TPM = "class/tpm/tpm0/device/uevent"


@dataclass(frozen=True)
class Uki:
    """One signed image: what the firmware measures of it, and what is in it."""

    measured: bytes
    settings: bytes
    anchors: Anchors
    policies: bytes | None


@dataclass
class FakeMachine:
    """A machine with what outlives its power. ``boot`` starts it.

    ``cut`` counts calls into the host: the power goes after so many. ``refused`` are modules that
    the kernel does not take, ``tick`` hears of each write to the TPM. ``watchdogs`` are identities.
    """

    uki: Uki
    tpm: FakeTpm
    firmware: x509.Certificate
    secure_boot: bytes
    serial: str
    command_line: str
    disks: list[Disk] = field(default_factory=list)
    wall: datetime = datetime(2026, 6, 1, 12, tzinfo=UTC)
    refused: set[str] = field(default_factory=set)
    kernel: Callable[[FakeKernel], None] = lambda _kernel: None
    tick: Callable[[str], None] = never
    mounts_fail: bool = False
    watchdogs: tuple[str, ...] = ()

    def boot(self, *, cut: int | None = None, late_cut: bool = False) -> Outcome:
        """Reset, measure, and run ``/init`` to its end."""
        running = self.power_on()
        first = FakeFirst(running, cut=cut, late_cut=late_cut)
        try:
            start(first)
        except EndError as end:
            return Outcome(type(end), running)
        except OSError as error:  # PID 1 has ended: the kernel panics
            running.lines.append(f"panic: {error}")
            return Outcome(type(error), running)
        except SystemExit as error:
            return Outcome(type(error), running)

    def power_on(self) -> FakeHost:
        """Reset the chips and measure, as firmware and stub do."""
        self.tpm.power_cycle()
        self.tpm.extend(7, self.secure_boot)
        self.tpm.extend(11, self.uki.measured)
        return FakeHost(self)

    def writes(self) -> int:
        """Count what was written to anything that outlives the power."""
        trees = [tree for disk in self.disks for tree in disk.trees()]
        return self.tpm.writes + sum(tree.writes for tree in trees)


@dataclass(frozen=True)
class Outcome:
    """How a boot ended, and the machine as it was then."""

    end: type[BaseException]
    host: FakeHost

    @property
    def lines(self) -> list[str]:
        """What stands on the console."""
        return self.host.lines

    @property
    def reason(self) -> str:
        """The one line that says why it failed, empty when it did not."""
        prefix = "BOOT FAILED: "
        return next((x.removeprefix(prefix) for x in self.lines if x.startswith(prefix)), "")


class FakeHost:
    """``Host`` of a machine that was switched on: what is lost with its power."""

    def __init__(self, machine: FakeMachine) -> None:
        self.machine = machine
        self.kernel = FakeKernel(machine.firmware)
        machine.kernel(self.kernel)
        self.lines: list[str] = []
        self.calls: list[tuple[str, tuple[object, ...]]] = []
        self.timer = 1.0
        self.wall = machine.wall
        self.settings: Settings | None = None
        self.mapped: dict[Path, Volume] = {}
        self.init: tuple[str, ...] = ()
        self.forgotten = 0
        self.listed: list[Path] = []
        self.storage = OpenStorage()
        self._policy_key = b""
        root = Tree()
        for folder in ("dev", "proc", "sys", "run", "sysroot", "tmp"):
            root.folder(folder)
        anchors = [getattr(machine.uki.anchors, name) for name in Anchors.__struct_fields__]
        for name, data in zip(ANCHOR_FILES, anchors, strict=True):
            root.put(str((FOLDER / name).relative_to("/")), data)
        if machine.uki.policies is not None:
            root.put(str(POLICY_FILE.relative_to("/")), machine.uki.policies)
        self.names = Namespace([Mounted(Path("/"), root, "rootfs", "rootfs")])

    # -- console and clock

    def say(self, text: str) -> None:
        self.lines.append(" ".join(text.split()))

    def read_clock(self) -> datetime:
        return self.wall

    def set_clock(self, seconds: int) -> None:
        self.wall = datetime.fromtimestamp(seconds, UTC)

    def read_timer(self) -> float:
        return self.timer

    def sleep(self, seconds: float) -> None:
        self.timer += seconds
        self.wall += timedelta(seconds=seconds)

    # -- kernel modules

    def wait_for_drivers(self) -> None:
        assert self.settings is not None
        self.load_modules(self.settings.modules)
        self.load_driver()

    def load_driver(self) -> bool:
        assert self.settings is not None
        present = {disk.alias for disk in self.machine.disks if disk.at <= self.timer} - {""}
        names = next_driver(self.settings.drivers, present, self.kernel.modules)
        self.load_modules(names or ())
        return names is not None

    def begin_modules(self, names: tuple[str, ...]) -> None: ...  # whoever needs them loads them

    def load_modules(self, names: tuple[str, ...]) -> None:
        for name in names:
            if name in self.machine.refused:
                raise ToolError(f"kernel module {name}: EKEYREJECTED")
            self.kernel.modules.add(name)

    # -- files

    def read_file(self, path: Path, limit: int) -> bytes:
        return self.names.read(path, limit)

    def read_part(self, path: Path, offset: int, size: int) -> bytes:
        return self.names.read(path, 1 << 30)[offset : offset + size]

    def read_text(self, path: Path) -> str:
        found = self.names.entry(path)
        if found is None or found.kind != "file":
            return ""
        return found.data[:65536].decode("utf-8", "replace").strip()

    def read_secret(self, path: Path, limit: int) -> Secret:
        return Secret(self.names.read(path, limit))

    def write_file(self, path: Path, data: bytes, mode: int) -> None:
        self.names.put(path, Entry("file", data, mode))

    def erase_file(self, path: Path) -> None:
        self.names.erase(path)

    def make_folder(self, path: Path, mode: int) -> None:
        self.names.make_folder(path, mode)

    def list_folder(self, path: Path, limit: int) -> tuple[str, ...]:
        self.listed.append(path)
        return self.names.list_folder(path)[:limit]

    def is_folder(self, path: Path) -> bool:
        found = self.names.entry(path)
        return found is not None and found.kind == "folder"

    def is_program(self, path: Path) -> bool:
        found = self.names.entry(path)
        return found is not None and bool(found.mode & 0o111)

    # -- disks

    def list_partitions(self) -> tuple[Partition, ...]:
        return tuple(sorted(part for disk in self._seen() for part in disk.partitions()))

    def list_disks(self) -> tuple[Path, ...]:
        return tuple(Path("/dev") / disk.name for disk in self._seen() if not disk.optical)

    def list_optical(self) -> tuple[Path, ...]:
        return tuple(Path("/dev") / disk.name for disk in self._seen() if disk.optical)

    def read_label(self, device: Path) -> str:
        try:
            content = self._content(device)
        except OSError:
            return ""
        return content.label if isinstance(content, Volume) else ""

    def read_header(self, device: Path, size: int) -> bytes:
        header = self.storage.header(device)
        if header is not None:
            return header[:size]
        content = self._content(device)
        if content is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(device))
        return content.start(device, size) if isinstance(content, Luks | Storage) else b"other"

    def open_luks(self, device: Path, name: str, header: Path, key: Secret) -> None:
        content = self._content(device)
        if not isinstance(content, Luks):
            content = Luks(b"", b"", "", Volume("none", Tree()))
        read = self.names.read(header, 8 << 20)
        self.mapped[MAPPER / name] = opened(content, device, read, key.reveal())

    # -- volumes of services

    def begin_volumes(self, group: str, device: Path, key: Secret) -> None:
        self.storage.begin(self._content(device), key.reveal())
        key.wipe()

    def list_volumes(self, group: str) -> Shown:
        return self.storage.shown()

    def open_volume(self, device: Path, name: str, uuid: str, key: Secret) -> None:
        self.storage.open(device, name, uuid, key)

    # -- mounts

    def mount(self, device: Path, target: Path, filesystem: str, flags: Flag) -> None:
        self.kernel.check_filesystem(filesystem)
        if filesystem == "tmpfs":
            self.names.add(Mounted(target, Tree(), filesystem, str(device), flags))
            return
        content = self.mapped.get(device) or self._content(device)
        what = f"mount {filesystem} {device} at {target}"
        if not isinstance(content, Volume) or content.kind != filesystem:
            raise ToolError(f"{what}: Invalid argument")
        if Flag.RDONLY not in flags:
            if content.locked:
                raise ToolError(f"{what}: Read-only file system")
            content.tree.writes += 1  # the superblock says when it was mounted
        self.names.add(Mounted(target, content.tree, filesystem, str(device), flags))

    def mount_overlay(self, target: Path, upper: Path, work: Path, flags: Flag) -> None:
        self.names.overlay(target, upper, work, flags)

    def mount_image(self, blob: Path, layer: Layer, signature: bytes, target: Path) -> None:
        data = self.names.read(blob, 1 << 30)
        kind = self.kernel.open_verity(data, layer, signature)
        self.kernel.check_filesystem(kind)
        flags = Flag.RDONLY | Flag.NODEV | Flag.NOSUID
        self.names.add(Mounted(target, image_tree(data), "verity", str(layer.digest), flags))

    def bind(self, source: Path, target: Path) -> None:
        self.names.bind(source, target, Flag.RDONLY | Flag.NOSUID | Flag.NODEV)

    def move(self, source: Path, target: Path) -> None:
        self.names.move(source, target)

    def unmount(self, target: Path) -> None:
        self.names.unmount(target)

    # -- stores and media

    def read_image(
        self, store: Path, target: Target, publisher: Publisher
    ) -> tuple[Manifest, Mapping[Digest, bytes]]:
        repository = self._repository(store)
        manifest = verify_target(repository, target)
        return manifest, root_hash_signatures(repository, target, manifest, publisher)

    def fetch_manifest(
        self, layouts: Path, name: str, reference: str, ca_pem: bytes, product: UUID
    ) -> VerifiedInstall:
        repository = self._repository(layouts / name)
        return fetch_verified(
            repository, reference, ca_pem=ca_pem, at=None, product=product
        ).verified

    # -- the TPM

    def open_sealed(self, policies: tuple[SignedPolicy, ...], policy_key: bytes) -> None:
        self._policy_key = policy_key
        self.machine.tpm.open(policies, policy_key)

    def read_sealed(self, index: Index) -> Secret:
        return self.machine.tpm.read(index, self._policy_key)

    def close_sealed(self) -> None:
        self.machine.tpm.close()

    def read_floor(self) -> str:
        return self.machine.tpm.read_floor()

    def raise_floor(self, version: str) -> None:
        self.machine.tpm.raise_floor(version, self._policy_key, self.machine.tick)

    def make_host_ca(self, identity: DeviceIdentity, private_key: Secret) -> HostCa:
        return HostCa(*make_host_ca(identity, private_key, random=bytes))

    def forget_secret(self, secret: Secret) -> None:
        secret.wipe()
        self.forgotten += 1

    def close_door(self, phase: Phase) -> None:
        self.machine.tpm.close_door(phase)

    def read_tpm_maker(self) -> Maker:
        return self.machine.tpm.read_maker()

    def provision_tpm(self, given: ProvisionTpm) -> None:
        self.machine.tpm.provision(given, self.machine.tick)

    # -- what the kernel trusts and allows

    def list_keys(self, name: str) -> tuple[str, ...]:
        return self.kernel.list_keys(name)

    def trust_certificate(self, certificate: bytes, what: str) -> None:
        self.kernel.trust(certificate, what)

    def enforce_policy(self, signed: bytes) -> None:
        self.kernel.enforce(signed)

    def load_profiles(self, compiled: bytes) -> None:
        self.kernel.load_profiles(compiled)

    def set_sysctl(self, name: str, value: str) -> None:
        self.kernel.sysctls[name] = value

    def replace_policy(self, signed: bytes) -> None:
        self.kernel.replace(signed)

    def drop_mac_admin(self) -> None:
        self.kernel.mac_admin = False

    def keep_secret(self, description: str, secret: Secret) -> None:
        self.kernel.keyring[description] = secret.reveal()

    def switch_root(self, root: Path, init: str, arguments: tuple[str, ...]) -> None:
        if self.names.at(root) is None:
            raise ToolError(f"mount MOVE . at /: {root} is no mount")
        self.init = (init, *arguments)
        raise HandedOverError

    def _seen(self) -> list[Disk]:
        return [
            disk
            for disk in self.machine.disks
            if disk.at <= self.timer and (not disk.driver or disk.driver in self.kernel.modules)
        ]

    def _content(self, device: Path) -> Luks | Volume | Storage | None:
        for disk in self._seen():
            content = disk.content(device.name)
            if content is not None:
                return content
        return None

    def _repository(self, folder: Path) -> MemoryRepository:
        mount = self.names.owner(folder)
        found = mount.tree.repositories.get(mount.inner(folder))
        if found is None:
            raise MissingError(f"{folder} is not an OCI image layout: it has no file oci-layout")
        return found


class FakeFirst:
    """``First`` of the same machine."""

    def __init__(
        self, running: FakeHost, *, cut: int | None = None, late_cut: bool = False
    ) -> None:
        self.running = running
        self._cut = cut
        self._late = late_cut
        self.did: list[str] = []

    def mount_pseudo(self) -> None:
        self.did.append("mount_pseudo")
        if self.running.machine.mounts_fail:
            raise OSError(19, "No such device")
        system = Tree()
        system.put(DMI, f"{self.running.machine.serial}\n".encode())
        if not self.running.machine.tpm.absent:
            driver = self.running.machine.tpm.driver
            system.put(TPM, f"DRIVER={driver}\nMODALIAS=acpi:MSFT0101:\n".encode())
        for number, identity in enumerate(self.running.machine.watchdogs):
            system.put(f"class/watchdog/watchdog{number}/identity", f"{identity}\n".encode())
        for name, tree in (("proc", Tree()), ("sys", system), ("dev", Tree()), ("run", Tree())):
            self.running.names.add(Mounted(Path("/") / name, tree, name, name))

    def ignore_signals(self) -> None:
        self.did.append("ignore_signals")

    def open_console(self) -> None:
        self.did.append("open_console")

    def say(self, text: str) -> None:
        self.running.say(text)

    def fail(self, text: str) -> None:
        self.running.say(f"BOOT FAILED: {text}")

    def read_settings(self) -> bytes:
        return self.running.machine.uki.settings

    def read_command_line(self) -> str:
        return self.running.machine.command_line

    def load_drivers(self, settings: Settings) -> None:
        self.did.append("load_drivers")
        assert settings == parse_settings(self.read_settings())
        self.running.settings = settings

    def seen(self) -> list[str]:
        return [f"disk         {disk.name}" for disk in self.running.machine.disks]

    def host(self) -> Host:
        return cast("Host", Cutting(self.running, self._cut, late=self._late))

    def sleep(self, seconds: float) -> None:
        self.did.append(f"sleep {seconds}")
        self.running.sleep(seconds)

    def power_off(self) -> None:
        raise PoweredOffError

    def restart(self) -> None:
        raise RestartedError
