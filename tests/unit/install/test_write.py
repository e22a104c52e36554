"""From an empty disk to a boot entry: every step, and every way in which it ends early."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.machine import FakeHost, FakeMachine
from machineos.core.digest import Digest
from machineos.core.facts import Facts, Part
from machineos.core.steps import Step, Talk, ask
from machineos.document.between.medium import INSTALL_KEY
from machineos.errors import BootError, MissingError, OrderError, SpaceError, ToolError
from machineos.host.disk.device import Disk, Partition
from machineos.install import stage, write
from machineos.install.phases import PHASES, given
from machineos.install.plan import partition_plan
from machineos.install.source import BLOCKS_KEY, DISK, HOST_CA, KEY, PLACE, Wish
from machineos.install.stage import LAYOUT
from machineos.install.steps import (
    STAGED,
    ListPartitions,
    MakeGroup,
    Now,
    RevokeKey,
    Say,
    Sleep,
    Staged,
    Ticks,
    TrustPublisher,
    WriteTable,
)
from machineos.install.write import (
    BOOTKIT,
    BOOTS,
    CONFIG,
    CONFIG_UUID,
    DEVICES,
    ESP,
    FILESYSTEMS,
    FIRST_SLOT,
    PARTS,
    SLOT,
    STORE,
    WORK,
    Devices,
    find_devices,
)
from machineos.state.config.steps import CreateStore, WriteBeside, first_files
from machineos.state.images.steps import MountImage
from machineos.state.slots.steps import (
    CONFIGURED,
    READ_BACK,
    STORED,
    CopyFile,
    CreateEntry,
    DeleteEntry,
    ListEntries,
    ReadBack,
    Slot,
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
from unit.document.conftest import NOW

from . import conftest
from .conftest import UUID, VDA, Watched, install

VDA1, VDA2, VDA3, VDA4, VDA5 = (Path(f"/dev/vda{number}") for number in range(1, 6))


def staged_by(machine: FakeMachine) -> Staged:
    watched = Watched(machine.boot())
    return watched.run(Wish(conftest.PLACE), PHASES[: len(PHASES) - len(PARTS)])[STAGED]


def test_every_step_in_its_order(machine: FakeMachine) -> None:
    staged = staged_by(machine)
    watched = install(machine)
    publisher = staged.fetched.verified.publisher
    bootkit, inspected = staged.images[2]
    names = (
        "EFI/machineos-a/grubx64.efi", "EFI/machineos-a/shimx64.efi", "EFI/BOOT/grubx64.efi",
        "EFI/BOOT/BOOTX64.EFI",
    )  # fmt: skip
    sources = [BOOTKIT / "bootkit" / name for name in ("kernel.efi", "shim.efi") * 2]
    expected: list[Step[object]] = [
        Say("writing to disk vda"),
        WriteTable(Path("/dev/vda"), partition_plan(VDA.size, staged.size)),
        Ticks(),
        ListPartitions(),
        MakeFilesystem("vfat", VDA1, "ESP"),
        MakeFilesystem("ext4", VDA3, "machine-store"),
        MakeGroup("machine-data", VDA5, conftest.BLOCKS_KEY),
        Say("images"),
        Mount(VDA3, STORE, "ext4"),
        *(StoreImage(LAYOUT, STORE / "mos", t.image, t.tag) for t, _ in staged.images),
        Unmount(STORE),
        Say("configuration"),
        FormatConfig(conftest.KEY, VDA2, UUID),
        UnlockConfig(conftest.KEY, VDA2),
        MakeFilesystem("ext4", Path("/dev/mapper/machine-config"), "config"),
        Mount(Path("/dev/mapper/machine-config"), CONFIG, "ext4"),
        *(
            WriteBeside(CONFIG, name, conftest.host_ca()[key], mode)
            for name, key, mode in (
                ("host-ca.key", "machineos:host-ca-key", 0o600),
                ("host-ca.pem", "machineos:host-ca-certificate", 0o644),
                ("host-ca.p7s", "machineos:host-ca-signature", 0o644),
            )
        ),
        Now(),
        CreateStore(CONFIG, first_files(staged.fetched), "Initial commit", int(NOW.timestamp())),
        Unmount(CONFIG),
        LockConfig(),
        Say("boot files"),
        TrustPublisher(publisher.certificate_der),
        MountImage(LAYOUT, bootkit.image, inspected.signatures[0][2], BOOTKIT),
        Mount(VDA1, ESP, "vfat"),
        *(CopyFile(file, ESP, name) for file, name in zip(sources, names, strict=True)),
        Unmount(ESP),
        Unmount(BOOTKIT),
        Mount(VDA1, ESP, "vfat", read_only=True),
        *(ReadBack(ESP, name) for name in names),
        Unmount(ESP),
        ListEntries(),
        CreateEntry(Path("/dev/vda"), 1, "machineos-a", "\\EFI\\machineos-a\\shimx64.efi"),
        RevokeKey("machineos:configuration-key"),
        RevokeKey("machineos:integrity-key"),
        *(RevokeKey(name) for name in conftest.host_ca()),
        Say("installed successfully: registry.example/machine/install:1.0.0"),
    ]
    start = watched.steps.index(expected[0])
    assert watched.steps[start:] == expected


def test_where_it_mounts() -> None:
    assert Path("/run/machineos/work") == WORK
    assert (STORE, CONFIG, ESP, BOOTKIT) == (
        WORK / "store", WORK / "config", WORK / "esp", WORK / "bootkit",
    )  # fmt: skip


def test_another_slot(machine: FakeMachine) -> None:
    watched = Watched(machine.boot())
    facts = given(Wish(conftest.PLACE), uuid=UUID, slot=Slot("machineos-3f9"))
    watched.take(PHASES, facts)
    assert [step.name for step in watched.steps if isinstance(step, CopyFile)][:2] == [
        "EFI/machineos-3f9/grubx64.efi", "EFI/machineos-3f9/shimx64.efi",
    ]  # fmt: skip
    ((_, entry),) = machine.entries()
    assert entry.description == "machineos-3f9"
    assert machine.installed(conftest.KEY, disk="vda")
    assert Slot("machineos-a") == FIRST_SLOT


def partition(number: int, label: str, disk: str = "vda") -> Partition:
    return Partition(disk, f"{disk}{number}", label)


ALL = (
    partition(1, "esp"),
    partition(2, "machine-config"),
    partition(3, "machine-store"),
    partition(4, "machine-data"),
)


def test_the_devices_are_those_of_this_disk() -> None:
    others = tuple(partition(n, part.label, "vdb") for n, part in enumerate(ALL, 1))
    assert find_devices((*others, *ALL), "vda") == Devices(VDA1, VDA2, VDA3, VDA4)
    assert find_devices((*ALL[::-1], partition(5, "more")), "vda").data == VDA4
    assert find_devices((*ALL, *others), "vdb").esp == Path("/dev/vdb1")


@pytest.mark.parametrize("missing", range(4))
def test_a_partition_that_is_not_there_is_named(missing: int) -> None:
    left = tuple(part for number, part in enumerate(ALL) if number != missing)
    elsewhere = partition(9, ALL[missing].label, "vdb")
    with pytest.raises(MissingError) as caught:
        find_devices((*left, elsewhere), "vda")
    label = ALL[missing].label
    assert caught.value.message == f"disk vda: partitions did not appear: {label}"


def test_several_that_are_not_there_are_all_named() -> None:
    with pytest.raises(MissingError, match="appear: esp, machine-config, machine-data, machine-s"):
        find_devices((), "vda")


def test_partitions_that_appear_late(machine: FakeMachine) -> None:
    host = machine.boot()
    host.hidden_partitions = 5
    watched = Watched(host)
    watched.run(Wish(conftest.PLACE))
    assert watched.steps.count(Sleep(0.1)) == 5
    assert machine.installed(conftest.KEY, disk="vda")


def test_partitions_that_never_appear(machine: FakeMachine) -> None:
    host = machine.boot()
    host.hidden_partitions = 1 << 30
    watched = Watched(host)
    with pytest.raises(BootError) as caught:
        watched.run(Wish(conftest.PLACE))
    assert caught.value.message == "disk vda: partitions did not appear: machine-data"
    assert 20.0 < host.seconds < 20.2
    assert machine.installed(conftest.KEY, disk="vda") == ""


class Slow(FakeHost):
    """A machine on which every wait takes ten seconds, and no partition ever appears."""

    def sleep(self, seconds: float) -> None:
        assert seconds == 0.1
        super().sleep(10.0)

    def list_partitions(self) -> tuple[Partition, ...]:
        return ()


def test_the_last_moment_still_counts(machine: FakeMachine) -> None:
    host = Slow(machine)
    with pytest.raises(BootError, match="partitions did not appear: esp, machine-config"):
        Watched(host).run(Wish(conftest.PLACE))
    assert host.seconds == 30.0


def test_a_disk_without_room_for_data_is_not_touched(machine: FakeMachine) -> None:
    machine.disks = (Disk("vda", 8 * 10**9, read_only=False, removable=False),)
    watched = Watched(machine.boot())

    with pytest.raises(SpaceError, match="nothing useful is left for data"):
        watched.take(
            [PARTS[0]],
            given(Wish(None), uuid=UUID).plus(DISK, machine.disks[0]).plus(STAGED, huge(machine)),
        )
    assert watched.steps == []


def huge(machine: FakeMachine) -> Staged:
    """What is staged, its images said to be of three GiB."""
    import msgspec

    staged = staged_by(machine)
    target, inspected = staged.images[0]
    layer = msgspec.structs.replace(inspected.image.layers[0], size=3 << 30)
    image = msgspec.structs.replace(inspected.image, layers=(layer,))
    from dataclasses import replace

    return Staged(staged.fetched, ((target, replace(inspected, image=image)),))


class Forgetful(FakeHost):
    """A disk that gives back something else for one boot file."""

    forgets = ""

    def read_back(self, root: Path, name: str) -> Digest:
        found = super().read_back(root, name)
        return Digest.of(b"something else") if name == self.forgets else found


@pytest.mark.parametrize(
    "name",
    ["EFI/machineos-a/grubx64.efi", "EFI/machineos-a/shimx64.efi", "EFI/BOOT/grubx64.efi",
     "EFI/BOOT/BOOTX64.EFI"],
)  # fmt: skip
def test_a_boot_file_that_reads_otherwise(machine: FakeMachine, name: str) -> None:
    host = Forgetful(machine)
    host.forgets = name
    watched = Watched(host)
    with pytest.raises(BootError) as caught:
        watched.run(Wish(conftest.PLACE))
    message = f"{ESP}/{name}: the disk does not give back what was written"
    assert caught.value.message == message
    assert machine.entries() == ()
    assert INSTALL_KEY in host.keys


class Bad(FakeHost):
    """A disk on which what is written is damaged at once."""

    def copy_file(self, source: Path, root: Path, name: str) -> Digest:
        written = super().copy_file(source, root, name)
        self.damage(self._source(source))
        return written


def test_a_bad_disk_is_noticed(machine: FakeMachine) -> None:
    """The damage is below the file system: only who reads the disk sees it."""
    with pytest.raises(BootError, match="the disk does not give back what was written"):
        Watched(Bad(machine)).run(Wish(conftest.PLACE))
    assert machine.entries() == ()


def test_a_publisher_that_the_kernel_does_not_accept(machine: FakeMachine) -> None:
    machine.publishers = frozenset()
    watched = Watched(machine.boot())
    with pytest.raises(Exception, match="the kernel does not accept this certificate"):
        watched.run(Wish(conftest.PLACE))
    assert not [step for step in watched.steps if isinstance(step, CopyFile)]


def test_old_entries_go_before_the_new_one_comes(machine: FakeMachine) -> None:
    install(machine)
    watched = install(machine)
    last = [step for step in watched.steps if isinstance(step, (DeleteEntry, CreateEntry))]
    assert [type(step) for step in last] == [DeleteEntry, CreateEntry]


class Full(FakeHost):
    """A firmware without room for one more entry."""

    def create_entry(self, disk: Path, partition: int, description: str, loader: str) -> None:
        raise ToolError("efibootmgr: no space left")


def test_a_firmware_that_takes_no_entry(machine: FakeMachine) -> None:
    """It is said; the fallback starts the machine all the same."""
    host = Full(machine)
    with pytest.raises(ToolError, match="no space left"):
        Watched(host).run(Wish(conftest.PLACE))
    assert not [line for line in host.said if "successfully" in line]
    assert INSTALL_KEY in host.keys
    assert machine.installed(conftest.KEY, disk="vda")


IMAGE = Digest.of(b"image")
DANGEROUS: tuple[tuple[Step[object], set[str]], ...] = (
    (WriteTable(VDA.device, ()), {"staged"}),
    (MakeFilesystem("ext4", VDA3, "machine-store"), {"partition table"}),
    (MakeGroup("machine-data", VDA5, conftest.BLOCKS_KEY), {"partition table"}),
    (FormatConfig(conftest.KEY, VDA2, UUID), {"partition table"}),
    (StoreImage(LAYOUT, STORE / "mos", IMAGE, "tag"), {"staged"}),
    (CopyFile(BOOTKIT / "x", ESP, "EFI/x"), {"images stored", "configuration stored"}),
    (DeleteEntry("0001"), {"boot files read back"}),
    (CreateEntry(VDA.device, 1, "machineos-a", "x"), {"boot files read back"}),
)


@pytest.mark.parametrize(("step", "facts"), DANGEROUS, ids=lambda one: type(one).__name__)
def test_a_dangerous_step_is_refused_before_what_must_hold(
    machine: FakeMachine, step: Step[object], facts: set[str]
) -> None:
    """Each fact alone: a phase that needs all the others may not take it."""
    assert step.after == facts
    everything = {name for one in PHASES for name in one.gives}
    for missing in facts:
        watched = Watched(machine.boot())
        phase = Part("too early", frozenset(everything - {missing}), frozenset(), only(step))
        with pytest.raises(OrderError) as caught:
            watched.take([phase], Facts(), *everything)
        assert caught.value.message == (
            f"phase too early takes {type(step).__name__} without needing what must hold before "
            f"it: {missing}"
        )
        assert (watched.steps, watched.points) == ([], [])


def only(step: Step[object]) -> Callable[[Facts], Talk[Facts]]:
    def talk(facts: Facts) -> Talk[Facts]:
        yield from ask(step)
        return facts

    return talk


def test_every_step_that_lasts_says_what_must_hold(machine: FakeMachine) -> None:
    """But for the first commit, which a folder that has a store already refuses by itself, and for
    what is written beside it."""
    lasting = {type(step) for step in install(machine).steps if step.point}
    assert {kind for kind in lasting if not kind.after} == {CreateStore, WriteBeside}
    assert lasting <= {CreateStore, WriteBeside, *(type(step) for step, _ in DANGEROUS)}


def test_the_disk_is_not_divided_before_all_is_staged(machine: FakeMachine) -> None:
    watched = Watched(machine.boot())
    with pytest.raises(OrderError, match="phase divide the disk comes before what it needs"):
        watched.take(PARTS, given(Wish(None), uuid=UUID).plus(DISK, VDA))
    assert watched.steps == []


def test_the_phases_say_what_they_need() -> None:
    assert [(part.name, set(part.needs), set(part.gives)) for part in PARTS] == [
        ("divide the disk", {DISK, STAGED}, {TABLE}),
        ("find the partitions", {DISK, TABLE}, {DEVICES}),
        ("make file systems", {DEVICES, TABLE, BLOCKS_KEY}, {FILESYSTEMS}),
        ("store the images", {DEVICES, STAGED, FILESYSTEMS}, {STORED}),
        (
            "store the configuration",
            {DEVICES, TABLE, STAGED, KEY, HOST_CA, CONFIG_UUID},
            {CONFIGURED},
        ),
        (
            "write the boot files",
            {DEVICES, STAGED, SLOT, FILESYSTEMS, STORED, CONFIGURED},
            {READ_BACK},
        ),
        ("point the firmware", {DISK, SLOT, READ_BACK}, {BOOTS}),
        ("end", {PLACE, BOOTS}, {"end"}),
    ]
    assert stage.PARTS[-1].gives == {STAGED}
    assert write.PARTITION_SECONDS == 20.0
