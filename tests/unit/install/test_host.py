"""This machine as a host of an installation, beside what the contract says of every host."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, ClassVar

import pytest

from fakes.disk import LoopDisk
from fakes.registry import fake_registry
from machineos.core.digest import Digest
from machineos.document.product.artifacts import ROOT_HASH_SIGNATURE
from machineos.errors import (
    ConflictError,
    DocumentError,
    MissingError,
    ToolError,
    TransferError,
)
from machineos.host.disk.device import Disk, Partition
from machineos.host.kernel.mount import Flag, is_mounted, mount, mounts, unmount
from machineos.install.host import LinuxHost, read_text
from machineos.oci.graph.copy import copy_graph
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.place import Place
from machineos.oci.model.reference import RegistryLocation
from machineos.oci.registry.client import HttpRegistry
from unit.document.conftest import NOW, PRODUCT, Authority, World
from vectors.clock import FixedClock


def local(world: World, tag: str = "1.0.0") -> Place:
    return Place(RegistryLocation(folder=world.root), "machine/install", tag)


@pytest.fixture
def host() -> LinuxHost:
    return LinuxHost(FixedClock(NOW), lambda _text: None)


def test_lines_and_time() -> None:
    said: list[str] = []
    with LinuxHost(FixedClock(datetime(2030, 1, 1, tzinfo=UTC)), said.append) as host:
        host.say("line")
        assert host.now() == datetime(2030, 1, 1, tzinfo=UTC)
        assert host.ticks() == 0.0
        host.sleep(5.0)  # this clock stands
    assert said == ["line"]


class Moving(FixedClock):
    """A clock that moves when it is waited for."""

    slept: ClassVar[list[float]] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def test_waiting_is_the_clocks() -> None:
    LinuxHost(Moving(), print).sleep(5.0)
    assert Moving.slept == [5.0]


def test_boot_files_commits_and_images_need_no_mount(
    host: LinuxHost, published_world: World, tmp_path: Path
) -> None:
    (tmp_path / "kernel").write_bytes(b"kernel")
    written = host.copy_file(tmp_path / "kernel", tmp_path / "esp", "EFI/x/grubx64.efi")
    assert host.read_back(tmp_path / "esp", "EFI/x/grubx64.efi") == written == Digest.of(b"kernel")
    (tmp_path / "config").mkdir()
    host.create_store(tmp_path / "config", {"a": b"1"}, message="x", seconds=0)
    with pytest.raises(ConflictError):
        host.create_store(tmp_path / "config", {"a": b"1"}, message="x", seconds=0)
    images = published_world.registry.repository("mos")
    tag = images.tags()[0]
    digest = images.resolve(tag).digest
    assert host.store_image(images.path, tmp_path / "mos", digest, tag="t") == ()
    assert LayoutRepository(tmp_path / "mos").resolve("t").digest == digest
    assert host.read_file(tmp_path / "kernel", limit=6) == b"kernel"


def test_small_texts(tmp_path: Path) -> None:
    (tmp_path / "url.txt").write_bytes(b" a\xff \n")
    assert read_text(tmp_path / "url.txt", limit=5) == "a\ufffd"
    assert read_text(tmp_path / "none", limit=5) is None
    with pytest.raises(DocumentError, match="larger than 4 bytes"):
        read_text(tmp_path / "url.txt", limit=4)
    with pytest.raises(DocumentError, match="regular file"):
        read_text(tmp_path, limit=5)


def test_disks_and_partitions_that_have_a_node(tmp_path: Path) -> None:
    block = tmp_path / "class/block"
    block.mkdir(parents=True)
    for name, uevent in (
        ("vdq", "DEVTYPE=disk"),
        ("vdq/null", "DEVTYPE=partition\nPARTNAME=esp"),  # /dev/null is a node
        ("vdq/machineos-none", "DEVTYPE=partition\nPARTNAME=late"),
    ):
        folder = tmp_path / "devices/pci0/block" / name
        folder.mkdir(parents=True)
        (folder / "uevent").write_text(uevent)
        (folder / "size").write_text("8\n")
        (block / folder.name).symlink_to(folder)
    host = LinuxHost(FixedClock(), print, sysfs=block)
    assert host.list_disks() == (Disk("vdq", 4096, read_only=False, removable=False),)
    assert host.list_partitions() == (Partition("vdq", "null", "esp"),)


def test_the_disks_of_this_machine_by_default(host: LinuxHost) -> None:
    assert isinstance(host.list_disks(), tuple)
    assert host.read_label(Path("/dev/machineos-none")) == ""


def test_from_a_folder_of_layouts_into_a_layout(
    host: LinuxHost, published_world: World, authority: Authority, tmp_path: Path
) -> None:
    place = local(published_world)
    host.resolve(place)
    fetched = host.fetch_manifest(place, ca_pem=authority.pem, at=NOW, product=PRODUCT)
    target = fetched.verified.install.targets[1]
    inspected = host.inspect_image(place, target, fetched.verified.publisher)
    assert [layer for layer, _, _ in inspected.signatures] == [
        layer.digest for layer in inspected.image.layers
    ]
    host.fetch_image(place, target, inspected.signatures, tmp_path / "staged")
    staged = LayoutRepository(tmp_path / "staged")
    assert staged.tags() == (target.tag,)
    assert staged.resolve(target.tag).digest == target.image
    assert len(staged.referrers(target.image, artifact_type=ROOT_HASH_SIGNATURE)) == 1
    with pytest.raises(MissingError):
        host.resolve(local(published_world, "9.9.9"))
    with pytest.raises(MissingError):
        host.fetch_manifest(
            local(published_world, "9.9.9"), ca_pem=authority.pem, at=NOW, product=PRODUCT
        )


def test_from_a_registry(published_world: World, authority: Authority) -> None:
    with fake_registry() as server, HttpRegistry(server.host) as client:
        for name in ("machine/install", "mos"):
            source = published_world.registry.repository(name)
            for tag in source.tags():
                copy_graph(source, client.repository(name), tag, tag=tag, referrers=True)
        text = f"{server.host}/machine/install:1.0.0"
        place = Place.parse_remote(text, plain_http=True)
        with LinuxHost(FixedClock(NOW), print) as host:
            host.resolve(place)
            fetched = host.fetch_manifest(place, ca_pem=authority.pem, at=NOW, product=PRODUCT)
            assert fetched.verified.install.targets
            with pytest.raises(MissingError):
                host.resolve(Place(place.at, "machine/none", "1", plain_http=True))


def test_a_registry_that_is_not_there(host: LinuxHost) -> None:
    place = Place.parse_remote("127.0.0.1:1/machine/install:1", plain_http=True)
    with pytest.raises(TransferError) as caught:
        host.resolve(place)
    assert caught.value.status == 0


@pytest.mark.system
def test_a_folder_in_memory(host: LinuxHost, tmp_path: Path) -> None:
    folder = tmp_path / "run/stage"
    memory = host.make_staging(folder)
    try:
        (found,) = (entry for entry in mounts() if entry.target == folder)
        assert found.fstype == "tmpfs"
        assert {"nosuid", "nodev", "noexec"} <= set(found.options)
        assert folder.stat().st_mode & 0o777 == 0o700
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        assert abs(memory.free - pages * 8 // 10) < pages // 20
        assert 0 < memory.unused < pages
    finally:
        unmount(folder)


@pytest.fixture
def disk(tmp_path: Path, host: LinuxHost) -> LoopDisk:
    made = LoopDisk(tmp_path / "disk", size=64 << 20)
    host.make_filesystem("ext4", made.device, label="x")
    return made


@pytest.mark.system
def test_what_is_mounted_can_execute_nothing(
    host: LinuxHost, disk: LoopDisk, tmp_path: Path
) -> None:
    for read_only in (False, True):
        folder = tmp_path / "deep/folder"
        host.mount(disk.device, folder, "ext4", read_only=read_only)
        (found,) = (entry for entry in mounts() if entry.target == folder)
        assert {"nosuid", "nodev", "noexec"} <= set(found.options)
        assert found.read_only is read_only
        host.unmount(folder)
        assert not is_mounted(folder)
    disk.close()


@pytest.mark.system
def test_nothing_stays_mounted_when_an_installation_ends_early(
    host: LinuxHost, disk: LoopDisk, tmp_path: Path
) -> None:
    """Also what lies in another mount, also what is in use."""
    outer, inner = tmp_path / "outer", tmp_path / "outer/inner"
    held: list[BinaryIO] = []

    def interrupted() -> None:
        with host:
            host.mount(disk.device, outer, "ext4", read_only=False)
            host.mount(disk.device, inner, "ext4", read_only=False)
            held.append((inner / "file").open("wb"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not is_mounted(inner)
    assert not is_mounted(outer)
    held[0].close()
    host.__exit__(None, None, None)  # once more is no fault
    disk.close()


@pytest.mark.system
def test_what_was_unmounted_is_left_alone_at_the_end(
    host: LinuxHost, disk: LoopDisk, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    with host:
        host.mount(disk.device, folder, "ext4", read_only=False)
        host.unmount(folder)
        mount("tmpfs", folder, "tmpfs", Flag.NONE)  # somebody else's
    assert is_mounted(folder)
    unmount(folder)
    disk.close()


def test_what_this_machine_has_not(host: LinuxHost, tmp_path: Path) -> None:
    with pytest.raises((MissingError, ToolError)):
        host.mount(tmp_path / "none", tmp_path / "folder", "ext4", read_only=True)
    with pytest.raises(MissingError):
        host.mount_image(tmp_path / "none", Digest.of(b""), b"", tmp_path / "folder")
    with pytest.raises(MissingError):
        host.read_key("machineos-test:none")
    with pytest.raises(MissingError):
        host.revoke_key("machineos-test:none")
    if shutil.which("efibootmgr") is None:
        for action in (
            host.list_entries,
            lambda: host.delete_entry("0000"),
            lambda: host.create_entry(Path("/dev/machineos-none"), 1, "x", "x"),
        ):
            with pytest.raises(ToolError, match="efibootmgr is not installed"):
                action()
