"""What every ``install.Host`` does: the machine in memory, this host, and a guest.

Each function here is one clause, and takes a ``Rig``: a host with a disk that may be spoiled. It
uses nothing but the package and assertions, so that it can be sent to a guest, which has no pytest.
``CLAUSES`` has them by what they need of the machine; a rig is tried with those that it can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from machineos.core.digest import Digest
from machineos.core.secret import Secret
from machineos.errors import (
    ConflictError,
    DocumentError,
    MachineOSError,
    MissingError,
    ToolError,
    VerificationError,
)
from machineos.host.disk.sfdisk import ESP, PartitionSpec
from machineos.install.plan import CONFIG_TYPE, LVM_TYPE, STORE_TYPE
from machineos.install.steps import Host
from machineos.oci.model.repository import Repository
from machineos.state.volumes.steps import Kind

MIB = 1 << 20
KEY, OTHER_KEY = Secret(bytes(range(32))), Secret(bytes(32))
UUID = "0b0f8dd4-37d6-4b15-8b9e-3f1d8a1c7a11"
TABLE = (
    PartitionSpec("esp", ESP, 64 * MIB),
    PartitionSpec("machine-config", CONFIG_TYPE, 64 * MIB),
    PartitionSpec("machine-store", STORE_TYPE, 256 * MIB),
    PartitionSpec("machine-data", LVM_TYPE, 0),
)
FILES = {"manifest.yaml": b"{}\n", "ab.json": bytes(range(256)), "ab.pem": b"", "z": b"z" * 70000}
NAME = "EFI/machineos-a/grubx64.efi"
MARK = b"<what the damage is done to, and nothing else on this disk>"


class Rig(Protocol):
    """A machine to try a host on."""

    @property
    def host(self) -> Host:
        """The host of this boot."""
        ...

    @property
    def disk(self) -> Path:
        """A whole disk of at least 1 GiB, which may be spoiled."""
        ...

    @property
    def esp(self) -> Kind:
        """The kind of file system that the EFI partition has here."""
        ...

    def work(self, name: str) -> Path:
        """Return a folder of this machine's own, to mount at or to write files in."""
        ...

    def device(self, name: str) -> Path:
        """Return a device of 64 MiB; the same name is the same one, also after a power cut."""
        ...

    def plain_file(self, name: str, data: bytes) -> Path:
        """Put a file where ``copy_file`` and ``read_file`` find it."""
        ...

    def staged(self, layers: Mapping[str, bytes]) -> tuple[Path, dict[str, Digest]]:
        """Make a layout in memory with an image for each name and its one layer, and an artifact
        with a root hash signature for each; return it and the images' digests."""
        ...

    def stored(self, layout: Path) -> Repository:
        """Return the layout at a path on a mounted file system, for reading."""
        ...

    def files(self, folder: Path) -> dict[str, bytes]:
        """Return the files below a folder of a mounted file system, git's own left out."""
        ...

    def keep_key(self, name: str, key: Secret) -> None:
        """Do as the initrd does: leave a key in root's keyring."""
        ...

    def power_cut(self) -> None:
        """Lose the power now and start again: another ``host``, what was not synced is lost."""
        ...

    def damage(self, content: bytes) -> int:
        """Change ``content`` wherever it lies on a device, below its file system; how often."""
        ...


Clause = Callable[[Rig], None]


def refused(
    action: Callable[[], object], *kinds: type[BaseException], part: str = ""
) -> BaseException:
    """Return the error of an action, which has to be of one of ``kinds`` and to say ``part``."""
    try:
        action()
    except kinds as error:
        assert part in str(error), f"{part!r} is not in {error}"
        return error
    raise AssertionError(f"nothing was refused, not {' or '.join(one.__name__ for one in kinds)}")


def make_mounted(rig: Rig, name: str, kind: Kind | None = None) -> Path:
    """Make a file system on a device, that of an EFI partition unless said, and mount it."""
    rig.host.make_filesystem(kind or rig.esp, rig.device(name), label="ESP")
    return mounted(rig, name, kind)


def mounted(rig: Rig, name: str, kind: Kind | None = None, *, read_only: bool = False) -> Path:
    """Mount the file system of a device."""
    folder = rig.work(f"{name}-mounted")
    rig.host.mount(rig.device(name), folder, kind or rig.esp, read_only=read_only)
    return folder


# -- every rig


def what_was_said_and_slept(rig: Rig) -> None:
    rig.host.say("line")
    before = rig.host.ticks()
    rig.host.sleep(0.01)
    assert rig.host.ticks() >= before + 0.01
    assert rig.host.now().tzinfo is not None


def files_are_read_bounded(rig: Rig) -> None:
    path = rig.plain_file("plain", b"12345")
    assert rig.host.read_file(path, limit=5) == b"12345"
    refused(lambda: rig.host.read_file(path, limit=4), DocumentError, part="larger than 4 bytes")
    refused(lambda: rig.host.read_file(path.with_name("none"), limit=4), MissingError)


# -- loop devices


def a_mounted_file_system_is_empty_and_is_there_after_a_cut(rig: Rig) -> None:
    folder = make_mounted(rig, "a")
    assert {name for name in rig.files(folder) if "lost+found" not in name} == set()
    rig.power_cut()
    mounted(rig, "a")


def what_is_no_file_system_is_not_mounted(rig: Rig) -> None:
    folder = rig.work("nothing")
    refused(lambda: rig.host.mount(rig.device("blank"), folder, "ext4", read_only=True), ToolError)
    refused(lambda: rig.host.unmount(folder), MachineOSError, part="unmount")


def a_copied_file_is_whole_after_a_cut(rig: Rig) -> None:
    data = MARK + bytes(range(256)) * 8192
    source = rig.plain_file("kernel", data)
    written = rig.host.copy_file(source, make_mounted(rig, "a"), NAME)
    assert written == Digest.of(data)
    rig.power_cut()
    folder = mounted(rig, "a", read_only=True)
    assert rig.files(folder) == {NAME: data}
    assert rig.host.read_back(folder, NAME) == written


def a_copied_file_is_read_back_from_the_disk(rig: Rig) -> None:
    data = bytes(4096) + MARK + bytes(10000)
    folder = make_mounted(rig, "a")
    written = rig.host.copy_file(rig.plain_file("kernel", data), folder, NAME)
    assert rig.host.read_back(folder, NAME) == written
    assert rig.damage(MARK) == 1
    assert rig.files(folder) == {NAME: data}, "nothing was in the kernel's memory"
    assert rig.host.read_back(folder, NAME) != written
    rig.host.unmount(folder)
    folder = mounted(rig, "a", read_only=True)
    assert rig.files(folder) != {NAME: data}
    assert rig.host.read_back(folder, NAME) != written


def what_cannot_be_copied_or_read(rig: Rig) -> None:
    folder = make_mounted(rig, "a")
    source = rig.plain_file("kernel", b"x")
    refused(lambda: rig.host.read_back(folder, "none"), OSError)
    refused(lambda: rig.host.copy_file(source.with_name("none"), folder, NAME), OSError)
    rig.host.unmount(folder)
    folder = mounted(rig, "a", read_only=True)
    refused(lambda: rig.host.copy_file(source, folder, NAME), OSError, part="Read-only")


def making_a_file_system_again_forgets_what_was_there(rig: Rig) -> None:
    folder = make_mounted(rig, "a")
    rig.host.copy_file(rig.plain_file("kernel", b"x"), folder, NAME)
    rig.host.unmount(folder)
    assert NAME not in rig.files(make_mounted(rig, "a"))


def images_arrive_in_the_store_and_are_there_after_a_cut(rig: Rig) -> None:
    layout, images = rig.staged({"one": b"layer one", "two": MARK + bytes(300_000)})
    store = make_mounted(rig, "a", "ext4") / "mos"
    for digest in images.values():
        assert rig.host.store_image(layout, store, digest, tag=digest.hex) == ()
    rig.power_cut()
    stored = rig.stored(mounted(rig, "a", "ext4", read_only=True) / "mos")
    assert stored.tags() == tuple(sorted(digest.hex for digest in images.values()))
    for digest in images.values():
        assert str(stored.resolve(digest.hex).digest) == str(digest)
        assert len(stored.referrers(digest)) == 1


def a_damaged_blob_of_the_store_is_found_and_replaced(rig: Rig) -> None:
    layer = MARK + bytes(300_000)
    layout, images = rig.staged({"two": layer})
    digest = images["two"]
    folder = make_mounted(rig, "a", "ext4")
    rig.host.store_image(layout, folder / "mos", digest, tag="t")
    before = rig.files(folder)
    assert rig.host.store_image(layout, folder / "mos", digest, tag="t") == ()
    assert rig.damage(MARK) == 1
    assert rig.host.store_image(layout, folder / "mos", digest, tag="t") == (Digest.of(layer),)
    rig.host.unmount(folder)
    assert rig.files(mounted(rig, "a", "ext4", read_only=True)) == before


def an_image_that_is_not_staged(rig: Rig) -> None:
    layout, _ = rig.staged({"one": b"layer one"})
    folder = make_mounted(rig, "a", "ext4")
    action = lambda: rig.host.store_image(layout, folder / "mos", Digest.of(b""), tag="t")  # noqa: E731
    refused(action, MissingError)


def a_first_commit_is_whole_after_a_cut(rig: Rig) -> None:
    rig.host.make_filesystem("ext4", rig.device("c"), label="config")
    folder = rig.work("config")
    rig.host.mount(rig.device("c"), folder, "ext4", read_only=False)
    commit = rig.host.create_store(folder, FILES, message="Initial commit", seconds=1_700_000_000)
    assert len(commit) == 40
    assert int(commit, 16) >= 0
    again = lambda: rig.host.create_store(folder, FILES, message="x", seconds=0)  # noqa: E731
    refused(again, ConflictError, part="holds a configuration store already")
    rig.power_cut()
    rig.host.mount(rig.device("c"), folder, "ext4", read_only=True)
    assert {n: d for n, d in rig.files(folder).items() if "/" not in n} == FILES
    refused(again, ConflictError)


def a_file_beside_the_store_is_whole_after_a_cut(rig: Rig) -> None:
    rig.host.make_filesystem("ext4", rig.device("c"), label="config")
    folder = rig.work("config")
    rig.host.mount(rig.device("c"), folder, "ext4", read_only=False)
    rig.host.write_beside(folder, "host-ca.key", KEY, mode=0o600)
    rig.power_cut()
    rig.host.mount(rig.device("c"), folder, "ext4", read_only=True)
    assert rig.files(folder)["host-ca.key"] == KEY.reveal()


# -- FAT


def the_texts_of_a_small_disk(rig: Rig) -> None:
    rig.host.make_filesystem("vfat", rig.device("s"), label="INST-DATA")
    folder = rig.work("s")
    rig.host.mount(rig.device("s"), folder, "vfat", read_only=False)
    rig.host.copy_file(rig.plain_file("url", b" registry.example/a:b\n\n"), folder, "url.txt")
    rig.host.copy_file(rig.plain_file("odd", b"\xff\x00"), folder, "odd.txt")
    rig.host.unmount(folder)
    assert rig.host.read_label(rig.device("s")) == "INST-DATA"
    names = ("url.txt", "disk.txt", "odd.txt")

    def read(limit: int) -> tuple[str | None, ...]:
        return rig.host.read_small_disk(rig.device("s"), folder, names, limit=limit)

    assert read(23) == ("registry.example/a:b", None, "\ufffd\x00")
    refused(lambda: read(22), DocumentError, part="larger than 22 bytes")
    rig.power_cut()
    blank = rig.device("t")
    refused(lambda: rig.host.read_small_disk(blank, folder, names, limit=24), ToolError)
    assert rig.host.read_label(rig.device("t")) == ""


# -- a whole disk


def a_table_gives_partitions_and_stays(rig: Rig) -> None:
    rig.host.write_table(rig.disk, TABLE)
    for _ in range(2):
        found = [one for one in wait_for_partitions(rig) if one[0] == rig.disk.name]
        assert [label for _, label, _ in found] == [one.label for one in TABLE]
        rig.power_cut()
    disks = {disk.name: disk for disk in rig.host.list_disks()}
    assert rig.disk.name not in disks or disks[rig.disk.name].size >= 1 << 30


def a_new_table_forgets_what_lay_in_its_partitions(rig: Rig) -> None:
    rig.host.write_table(rig.disk, TABLE)
    device = device_of(rig, "machine-store")
    rig.host.make_filesystem("ext4", device, label="x")
    rig.host.mount(device, rig.work("m"), "ext4", read_only=False)
    rig.host.unmount(rig.work("m"))
    rig.host.write_table(rig.disk, TABLE)
    device = device_of(rig, "machine-store")
    refused(lambda: rig.host.mount(device, rig.work("m"), "ext4", read_only=True), ToolError)


def a_disk_of_nobody_is_not_in_use(rig: Rig) -> None:
    assert rig.host.look_at_use((rig.disk,)).of(rig.disk.name) == ()


def what_is_no_disk_gets_no_table(rig: Rig) -> None:
    refused(lambda: rig.host.write_table(Path("/dev/machineos-none"), TABLE), ToolError)


def wait_for_partitions(rig: Rig) -> tuple[tuple[str, str, Path], ...]:
    """Return (disk, label, device) of what the kernel shows once it shows all."""
    for _ in range(600):
        found = tuple((p.disk, p.label, p.device) for p in rig.host.list_partitions())
        if sum(disk == rig.disk.name for disk, _, _ in found) >= len(TABLE):
            return found
        rig.host.sleep(0.1)
    raise AssertionError(f"{rig.disk}: the kernel shows no partitions")


def device_of(rig: Rig, label: str) -> Path:
    """Return the device of a partition of the disk."""
    found = wait_for_partitions(rig)
    return next(device for disk, name, device in found if (disk, name) == (rig.disk.name, label))


# -- device-mapper


def the_configuration_volume_opens_with_its_key_only(rig: Rig) -> None:
    rig.host.write_table(rig.disk, TABLE)
    device = device_of(rig, "machine-config")
    refused(lambda: rig.host.unlock_config(KEY, device), VerificationError)
    rig.host.format_config(KEY, device, uuid=UUID)
    opening = lambda: rig.host.unlock_config(OTHER_KEY, device)  # noqa: E731
    refused(opening, VerificationError, part="does not open")
    mapped = rig.host.unlock_config(KEY, device)
    assert mapped == Path("/dev/mapper/machine-config")
    rig.host.make_filesystem("ext4", mapped, label="config")
    folder = rig.work("config")
    rig.host.mount(mapped, folder, "ext4", read_only=False)
    rig.host.create_store(folder, FILES, message="Initial commit", seconds=0)
    refused(rig.host.lock_config, ToolError)
    rig.host.unmount(folder)
    rig.host.lock_config()
    rig.host.lock_config()
    mapped = rig.host.unlock_config(KEY, device)
    rig.host.mount(mapped, folder, "ext4", read_only=True)
    assert {n: d for n, d in rig.files(folder).items() if "/" not in n} == FILES
    rig.host.unmount(folder)
    rig.host.lock_config()


def a_volume_group_is_made_whatever_was_there(rig: Rig) -> None:
    rig.host.write_table(rig.disk, TABLE)
    device = device_of(rig, "machine-data")
    rig.host.make_filesystem("ext4", device, label="old")
    for _ in range(2):
        rig.host.make_group("contract-data", device, key=KEY)
    refused(lambda: rig.host.mount(device, rig.work("m"), "ext4", read_only=True), ToolError)
    none = Path("/dev/machineos-none")
    refused(lambda: rig.host.make_group("contract-data", none, key=KEY), ToolError)


# -- the firmware


def a_boot_entry_is_there_until_it_is_deleted(rig: Rig) -> None:
    rig.host.write_table(rig.disk, TABLE)
    wait_for_partitions(rig)
    before = {entry.number for entry in rig.host.list_entries()}
    rig.host.create_entry(rig.disk, 1, "machineos-x", "\\EFI\\machineos-x\\shimx64.efi")
    rig.host.create_entry(rig.disk, 1, "machineos-y", "\\EFI\\machineos-y\\shimx64.efi")
    made = [entry for entry in rig.host.list_entries() if entry.number not in before]
    assert {entry.description for entry in made} == {"machineos-x", "machineos-y"}
    assert all(entry.active for entry in made)
    rig.power_cut()
    assert {e.number for e in rig.host.list_entries()} >= {e.number for e in made}
    for entry in made:
        rig.host.delete_entry(entry.number)
    assert {entry.number for entry in rig.host.list_entries()} == before


# -- the kernel's keyring


def a_key_is_read_until_it_is_revoked(rig: Rig) -> None:
    name = "machineos:contract"
    refused(lambda: rig.host.read_key(name), MissingError, part="holds no key")
    refused(lambda: rig.host.revoke_key(name), MissingError)
    rig.keep_key(name, KEY)
    assert rig.host.read_key(name) == KEY
    rig.host.revoke_key(name)
    refused(lambda: rig.host.read_key(name), MachineOSError)


CLAUSES: dict[str, tuple[Clause, ...]] = {
    "any": (
        what_was_said_and_slept,
        files_are_read_bounded,
        what_is_no_disk_gets_no_table,
    ),
    "loop": (
        a_mounted_file_system_is_empty_and_is_there_after_a_cut,
        what_is_no_file_system_is_not_mounted,
        a_copied_file_is_whole_after_a_cut,
        a_copied_file_is_read_back_from_the_disk,
        what_cannot_be_copied_or_read,
        making_a_file_system_again_forgets_what_was_there,
        images_arrive_in_the_store_and_are_there_after_a_cut,
        a_damaged_blob_of_the_store_is_found_and_replaced,
        an_image_that_is_not_staged,
        a_first_commit_is_whole_after_a_cut,
        a_file_beside_the_store_is_whole_after_a_cut,
    ),
    "fat": (the_texts_of_a_small_disk,),
    "disk": (
        a_table_gives_partitions_and_stays,
        a_disk_of_nobody_is_not_in_use,
        a_new_table_forgets_what_lay_in_its_partitions,
    ),
    "device-mapper": (
        the_configuration_volume_opens_with_its_key_only,
        a_volume_group_is_made_whatever_was_there,
    ),
    "firmware": (a_boot_entry_is_there_until_it_is_deleted,),
    "keyring": (a_key_is_read_until_it_is_revoked,),
}


def clauses(needs: Iterable[str]) -> list[Clause]:
    """Return the clauses that need no more than this."""
    return [clause for need in needs for clause in CLAUSES[need]]
