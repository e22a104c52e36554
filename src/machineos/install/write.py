"""Making the machine out of a disk: from the partition table to the firmware's boot entry.

The order: partitions, file systems, store, configuration, EFI partition, and the boot entry last,
so that a machine whose installation was cut short is one that has not been installed. What is
durable when its step is over stays so; what a cut leaves in the middle is made anew. Touches
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from machineos.core.facts import Fact, Facts, Part
from machineos.core.steps import ask
from machineos.document.between.medium import (
    CA_CERTIFICATE,
    CA_KEY,
    CA_SIGNATURE,
    INSTALL_KEY,
    INTEGRITY_KEY,
)
from machineos.document.rules.images import BOOT_FILES
from machineos.errors import BootError, MissingError
from machineos.install.plan import (
    CONFIG_LABEL,
    DATA_LABEL,
    ESP_LABEL,
    GROUP,
    STORE_LABEL,
    partition_plan,
)
from machineos.install.source import BLOCKS_KEY, DISK, HOST_CA, KEY, PLACE, RUN, shown
from machineos.install.stage import LAYOUT
from machineos.install.steps import (
    STAGED,
    ListPartitions,
    MakeGroup,
    Now,
    RevokeKey,
    Say,
    Sleep,
    Ticks,
    TrustPublisher,
    WriteTable,
)
from machineos.state.config.steps import FIRST_MESSAGE, CreateStore, WriteBeside, first_files
from machineos.state.images.steps import MountImage
from machineos.state.slots.steps import (
    CONFIGURED,
    READ_BACK,
    STORED,
    ListEntries,
    Slot,
    check_read_back,
    fallback_files,
    point_to,
    read_files,
    write_files,
)
from machineos.state.store.steps import StoreImage
from machineos.state.volumes.steps import (
    TABLE,
    FormatConfig,
    LockConfig,
    MakeFilesystem,
    Mount,
    UnlockConfig,
    Unmount,
)

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.core.digest import Digest
    from machineos.core.secret import Secret
    from machineos.core.steps import Talk
    from machineos.host.disk.device import Partition
    from machineos.install.source import HostCa
    from machineos.install.steps import Staged

FIRST_SLOT = Slot("machineos-a")
WORK = RUN / "work"
STORE, CONFIG, ESP, BOOTKIT = WORK / "store", WORK / "config", WORK / "esp", WORK / "bootkit"
STORE_LAYOUT = "mos"
ESP_NUMBER = 1  # it is the first in the plan
PARTITION_SECONDS = 20.0
_AGAIN_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Devices:
    """The device nodes of the new partitions."""

    esp: Path
    config: Path
    store: Path
    data: Path


CONFIG_UUID: Fact[str] = Fact("uuid of the configuration volume")
SLOT: Fact[Slot] = Fact("slot")
DEVICES: Fact[Devices] = Fact("devices")
FILESYSTEMS, BOOTS = "file systems", "boot entry"


def find_devices(partitions: tuple[Partition, ...], disk: str) -> Devices:
    """Return the nodes of the partitions of ``disk``. Raises: MissingError naming those that are
    not there (yet)."""
    found = {one.label: one.device for one in partitions if one.disk == disk}
    wanted = {ESP_LABEL, CONFIG_LABEL, STORE_LABEL, DATA_LABEL}
    if not wanted <= set(found):
        missing = ", ".join(sorted(wanted - set(found)))
        raise MissingError(f"disk {disk}: partitions did not appear: {missing}")
    return Devices(found[ESP_LABEL], found[CONFIG_LABEL], found[STORE_LABEL], found[DATA_LABEL])


def bootkit_of(staged: Staged) -> tuple[Digest, bytes]:
    """Return the bootkit's image and the signature of the root hash of its boot files; that both
    are there ``stage`` has seen to."""
    ((target, inspected),) = (one for one in staged.images if one[0].service_name == "bootkit")
    _, _, signature = inspected.signatures[BOOT_FILES]
    return target.image, signature


def host_ca_files(ca: HostCa) -> tuple[tuple[str, Secret, int], ...]:
    """Return the files of the host's CA in /config: name, content, mode."""
    return (
        ("host-ca.key", ca.private_key, 0o600),
        ("host-ca.pem", ca.certificate, 0o644),
        ("host-ca.p7s", ca.signature, 0o644),
    )


def _divide(facts: Facts) -> Talk[Facts]:
    disk = facts[DISK]
    partitions = partition_plan(disk.size, facts[STAGED].size)
    yield from ask(Say(f"writing to disk {disk.name}"))
    yield from ask(WriteTable(disk.device, partitions))
    return Facts()


def _find(facts: Facts) -> Talk[Facts]:
    """Wait until the kernel shows all of them."""
    deadline = (yield from ask(Ticks())) + PARTITION_SECONDS
    while True:
        partitions = yield from ask(ListPartitions())
        try:
            return Facts().plus(DEVICES, find_devices(partitions, facts[DISK].name))
        except MissingError as error:
            if (yield from ask(Ticks())) > deadline:
                raise BootError(error.message) from error
        yield from ask(Sleep(_AGAIN_SECONDS))


def _format(facts: Facts) -> Talk[Facts]:
    devices = facts[DEVICES]
    yield from ask(MakeFilesystem("vfat", devices.esp, "ESP"))
    yield from ask(MakeFilesystem("ext4", devices.store, STORE_LABEL))
    yield from ask(MakeGroup(GROUP, devices.data, facts[BLOCKS_KEY]))
    return Facts()


def _store(facts: Facts) -> Talk[Facts]:
    yield from ask(Say("images"))
    yield from ask(Mount(facts[DEVICES].store, STORE, "ext4"))
    for target, _ in facts[STAGED].images:
        yield from ask(StoreImage(LAYOUT, STORE / STORE_LAYOUT, target.image, target.tag))
    yield from ask(Unmount(STORE))
    return Facts()


def _configure(facts: Facts) -> Talk[Facts]:
    """The encrypted volume with the host's CA and its first commit."""
    key, device = facts[KEY], facts[DEVICES].config
    files = first_files(facts[STAGED].fetched)
    yield from ask(Say("configuration"))
    yield from ask(FormatConfig(key, device, facts[CONFIG_UUID]))
    mapped = yield from ask(UnlockConfig(key, device))
    yield from ask(MakeFilesystem("ext4", mapped, "config"))
    yield from ask(Mount(mapped, CONFIG, "ext4"))
    for name, data, mode in host_ca_files(facts[HOST_CA]):
        yield from ask(WriteBeside(CONFIG, name, data, mode))
    seconds = int((yield from ask(Now())).timestamp())
    yield from ask(CreateStore(CONFIG, files, FIRST_MESSAGE, seconds))
    yield from ask(Unmount(CONFIG))
    yield from ask(LockConfig())
    return Facts()


def _write_boot_files(facts: Facts) -> Talk[Facts]:
    """The slot, and the same for firmware that lost its variables; each file is read back after
    the partition was unmounted."""
    staged, esp = facts[STAGED], facts[DEVICES].esp
    bootkit, signature = bootkit_of(staged)
    files = (*facts[SLOT].files, *fallback_files())
    yield from ask(Say("boot files"))
    yield from ask(TrustPublisher(staged.fetched.verified.publisher.certificate_der))
    yield from ask(MountImage(LAYOUT, bootkit, signature, BOOTKIT))
    yield from ask(Mount(esp, ESP, "vfat"))
    written = []
    for step in write_files(BOOTKIT, ESP, files):
        written.append((step.name, (yield from ask(step))))
    yield from ask(Unmount(ESP))
    yield from ask(Unmount(BOOTKIT))
    yield from ask(Mount(esp, ESP, "vfat", read_only=True))
    for (name, digest), back in zip(written, read_files(ESP, files), strict=True):
        check_read_back(ESP / name, digest, (yield from ask(back)))
    yield from ask(Unmount(ESP))
    return Facts()


def _point(facts: Facts) -> Talk[Facts]:
    entries = yield from ask(ListEntries())
    for step in point_to(facts[SLOT], facts[DISK].device, ESP_NUMBER, entries):
        yield from ask(step)
    return Facts()


def _end(facts: Facts) -> Talk[Facts]:
    for name in (INSTALL_KEY, INTEGRITY_KEY, CA_KEY, CA_CERTIFICATE, CA_SIGNATURE):
        yield from ask(RevokeKey(name))
    yield from ask(Say(f"installed successfully: {shown(facts[PLACE])}"))
    return Facts()


PARTS = (
    Part("divide the disk", frozenset({DISK, STAGED}), frozenset({TABLE}), _divide),
    Part("find the partitions", frozenset({DISK, TABLE}), frozenset({DEVICES}), _find),
    Part(
        "make file systems",
        frozenset({DEVICES, TABLE, BLOCKS_KEY}),
        frozenset({FILESYSTEMS}),
        _format,
    ),
    Part(
        "store the images", frozenset({DEVICES, STAGED, FILESYSTEMS}), frozenset({STORED}), _store
    ),
    Part(
        "store the configuration",
        frozenset({DEVICES, TABLE, STAGED, KEY, HOST_CA, CONFIG_UUID}),
        frozenset({CONFIGURED}),
        _configure,
    ),
    Part(
        "write the boot files",
        frozenset({DEVICES, STAGED, SLOT, FILESYSTEMS, STORED, CONFIGURED}),
        frozenset({READ_BACK}),
        _write_boot_files,
    ),
    Part("point the firmware", frozenset({DISK, SLOT, READ_BACK}), frozenset({BOOTS}), _point),
    Part("end", frozenset({PLACE, BOOTS}), frozenset({"end"}), _end),
)
