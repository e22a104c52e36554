"""Writing a staged machine to a disk. Decides nothing: the plan and the staged content say it all.

Order: partitions, file systems, store, configuration, EFI partition, and the firmware's boot entry
last, so that a machine whose installation was cut short is one that has not been installed.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from machineos.core.files import fsync_folder
from machineos.document.state import system
from machineos.document.verify import images as targets
from machineos.errors import BootError
from machineos.host.disk import blockdev, luks, lvm, mkfs, sfdisk
from machineos.host.efi import efibootmgr
from machineos.host.kernel import keyring
from machineos.host.kernel.mount import Flag, mount, unmount
from machineos.install import plan
from machineos.state.config.store import create_store
from machineos.state.images.volume import image_volume, mount_image
from machineos.state.volumes import config as configvolume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from machineos.core.clock import Clock
    from machineos.install.stage import Staged
    from machineos.oci.layout.folder import LayoutRepository

GROUP = "machine-data"
SLOT = "machineos-a"
_FLAGS = Flag.NOSUID | Flag.NODEV | Flag.NOEXEC
_WAIT = 20.0


@dataclass(frozen=True, slots=True)
class Job:
    """What to write where. ``key`` is the configuration key; ``work`` a folder for mount points."""

    disk: blockdev.Disk
    partitions: tuple[sfdisk.PartitionSpec, ...]
    staged: Staged
    content: LayoutRepository
    key: bytes
    work: Path

    def __repr__(self) -> str:
        return f"Job({self.disk.name})"


def apply(job: Job, clock: Clock, say: Callable[[str], None]) -> None:
    """Install. Everything that was on the disk is lost. Raises: ToolError, BootError."""
    say(f"writing to disk {job.disk.name}")
    sfdisk.write_table(job.disk.device, job.partitions)
    devices = _devices(job, clock)
    mkfs.make_fat32(devices[plan.ESP_LABEL], label="ESP")
    mkfs.make_ext4(devices[plan.STORE_LABEL], label=plan.STORE_LABEL)
    lvm.Group(GROUP, devices[plan.DATA_LABEL]).create()
    say("images")
    with _mounted(devices[plan.STORE_LABEL], job.work / "store", "ext4") as store:
        copy_store(job.content.path, store / "mos")
    say("configuration")
    write_config(job, devices[plan.CONFIG_LABEL], clock)
    say("boot files")
    with _mounted(devices[plan.ESP_LABEL], job.work / "esp", "vfat") as esp:
        write_esp(job, esp)
    set_boot_entry(job)


def copy_store(source: Path, target: Path) -> None:
    """Copy the staged layout, durably. Its bytes were hashed when they came into memory."""
    shutil.copytree(source, target)
    for folder, _, names in os.walk(target):
        for name in names:
            with (Path(folder) / name).open("rb") as file:
                os.fsync(file.fileno())
        fsync_folder(Path(folder))
    fsync_folder(target.parent)


def write_config(job: Job, device: Path, clock: Clock) -> None:
    """Make the encrypted configuration volume with its first commit. Raises: ToolError."""
    verified = job.staged.fetched.verified
    merged = system.merge([verified])
    stored = system.system_file(merged, system.assign_idmaps({}, merged.groups))
    names = system.document_files(verified.sha256)
    contents = (verified.data, job.staged.fetched.signature, job.staged.fetched.certificate_pem)
    files = {system.SYSTEM_FILE: stored.to_bytes(), **dict(zip(names, contents, strict=True))}
    volume = configvolume.format_config(job.key, device, uuid=str(uuid4()))
    mapped = luks.open_volume(volume, configvolume.passphrase(job.key))
    try:
        mkfs.make_ext4(mapped, label="config")
        with _mounted(mapped, job.work / "config", "ext4") as folder:
            create_store(
                folder, files, message="Initial commit", seconds=int(clock.now().timestamp())
            )
    finally:
        luks.close_volume(volume.name)


def write_esp(job: Job, esp: Path) -> None:
    """Copy shim and UKI into their slot and into the fallback folder, and read them back."""
    install = job.staged.fetched.verified.install
    target = install.target("bootkit")
    if target is None:
        raise BootError("the manifest has no bootkit")
    manifest = job.staged.images["bootkit"]
    layer = manifest.layers[0]
    publisher = job.staged.fetched.verified.publisher
    found = targets.root_hash_signatures(job.content, target, manifest, publisher)
    if layer.digest not in found:
        raise BootError("nobody signed the root hash of the bootkit")
    trusted = keyring.find_keyring(keyring.SECONDARY)
    keyring.add_certificate(trusted, publisher.certificate_der, what="publisher")
    image = image_volume(job.content.blob_path(layer.digest), layer, signature=found[layer.digest])
    source = job.work / "bootkit"
    source.mkdir(exist_ok=True)
    mount_image(image, source)
    try:
        for folder, loader in ((SLOT, "shimx64.efi"), ("BOOT", "BOOTX64.EFI")):
            _copy_checked(source / "bootkit/shim.efi", esp / "EFI" / folder / loader)
            _copy_checked(source / "bootkit/kernel.efi", esp / "EFI" / folder / "grubx64.efi")
    finally:
        unmount(source)


def set_boot_entry(job: Job) -> None:
    """Make the firmware boot the new slot, and forget entries of earlier installations."""
    for entry in efibootmgr.list_entries():
        if entry.description.startswith("machineos-"):
            efibootmgr.delete_entry(entry)
    efibootmgr.create_entry(
        job.disk.device, 1, description=SLOT, loader=f"\\EFI\\{SLOT}\\shimx64.efi"
    )


def _copy_checked(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    data = source.read_bytes()
    with target.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fsync_folder(target.parent)
    if target.read_bytes() != data:
        raise BootError(f"{target}: the disk does not give back what was written")


def _devices(job: Job, clock: Clock) -> dict[str, Path]:
    """Return the device of each new partition, once the kernel shows all of them."""
    wanted = {partition.label for partition in job.partitions}
    deadline = clock.monotonic() + _WAIT
    while True:
        found = {
            partition.label: partition.device
            for partition in blockdev.partitions()
            if partition.disk == job.disk.name and partition.device.exists()
        }
        if wanted <= set(found):
            return found
        if clock.monotonic() > deadline:
            missing = ", ".join(sorted(wanted - set(found)))
            raise BootError(f"disk {job.disk.name}: partitions did not appear: {missing}")
        clock.sleep(0.1)


@contextmanager
def _mounted(device: Path, folder: Path, fstype: str) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    mount(device, folder, fstype, _FLAGS)
    try:
        yield folder
    except BaseException:
        unmount(folder, lazy=True)
        raise
    else:
        unmount(folder)
