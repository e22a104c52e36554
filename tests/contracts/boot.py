"""The contract of the machine's files, mounts, disks and stores (``machineos.boot.host``)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC
from pathlib import Path
from uuid import UUID

from contracts.beds import KEY, OTHER_KEY, SAFE, Bed, DiskBed, MountBed, StoreBed, refused
from machineos.core.secret import Secret
from machineos.errors import (
    DocumentError,
    MachineOSError,
    MissingError,
    PolicyError,
    SignatureError,
    ToolError,
    VerificationError,
)
from machineos.host.disk.device import Partition
from machineos.host.kernel.flags import Flag
from machineos.state.volumes.header import HEADER_SIZE, RECORD_OFFSET, check_header

# -- files


def files_are_read_whole_up_to_a_limit(bed: Bed) -> None:
    path = bed.folder / "file"
    bed.plant(path, b"content")
    assert bed.host.read_file(path, 7) == b"content"
    assert bed.host.read_file(path, 100) == b"content"
    text = refused(DocumentError, lambda: bed.host.read_file(path, 6))
    assert text == f"{path}: is larger than 6 bytes"
    bed.plant(path, b"")
    assert bed.host.read_file(path, 0) == b""


def what_is_no_regular_file_is_not_read(bed: Bed) -> None:
    missing, link, fifo = (bed.folder / name for name in ("missing", "link", "fifo"))
    bed.plant(bed.folder / "target", b"x")
    bed.plant(link, b"target", kind="link")
    bed.plant(fifo, kind="fifo")
    for read in (bed.host.read_file, bed.host.read_secret):
        text = refused(MissingError, lambda read=read: read(missing, 9))  # type: ignore[misc]
        assert text == f"{missing} does not exist"
        text = refused(DocumentError, lambda read=read: read(link, 9))  # type: ignore[misc]
        assert text == f"{link}: is a symbolic link"
        for path in (fifo, bed.folder):
            text = refused(DocumentError, lambda read=read, path=path: read(path, 9))  # type: ignore[misc]
            assert text == f"{path}: is not a regular file"


def a_secret_is_read_and_not_shown(bed: Bed) -> None:
    path = bed.folder / "secret"
    bed.plant(path, b"secret\n", mode=0o600)
    found = bed.host.read_secret(path, 7)
    assert found == Secret(b"secret\n")
    assert "secret\n" not in repr(found)
    refused(DocumentError, lambda: bed.host.read_secret(path, 6))


def a_part_of_a_file_is_read(bed: Bed) -> None:
    path = bed.folder / "file"
    bed.plant(path, b"0123456789")
    assert bed.host.read_part(path, 0, 4) == b"0123"
    assert bed.host.read_part(path, 8, 100) == b"89"
    assert bed.host.read_part(path, 20, 4) == b""
    refused(MissingError, lambda: bed.host.read_part(bed.folder / "missing", 0, 1))
    bed.plant(bed.folder / "link", b"file", kind="link")
    refused(DocumentError, lambda: bed.host.read_part(bed.folder / "link", 0, 1))


def a_folder_lists_so_many_names(bed: Bed) -> None:
    folder = bed.folder / "listed"
    assert bed.host.list_folder(folder, 9) == ()
    bed.host.make_folder(folder, 0o755)
    assert bed.host.list_folder(folder, 9) == ()
    names = {f"name {number}" for number in range(5)}
    for name in names:
        bed.plant(folder / name, b"x")
    assert set(bed.host.list_folder(folder, 5)) == names
    assert len(bed.host.list_folder(folder, 3)) == 3
    bed.plant(bed.folder / "file", b"x")
    refused(OSError, lambda: bed.host.list_folder(bed.folder / "file", 9))
    bed.plant(bed.folder / "link", b"listed", kind="link")
    refused(OSError, lambda: bed.host.list_folder(bed.folder / "link", 9))


def small_texts_are_read_or_empty(bed: Bed) -> None:
    path = bed.folder / "serial"
    assert bed.host.read_text(path) == ""
    bed.plant(path, b" SN-1 \xff\n")
    assert bed.host.read_text(path) == "SN-1 \ufffd"
    bed.plant(path, b"x" * 100_000)
    assert len(bed.host.read_text(path)) == 65536


def files_are_written_whole_with_their_mode(bed: Bed) -> None:
    path = bed.folder / "written"
    bed.host.write_file(path, b"first", 0o600)
    assert bed.look(path) == (b"first", 0o600)
    bed.host.write_file(path, b"2", 0o644)
    assert bed.look(path) == (b"2", 0o644)
    refused(OSError, lambda: bed.host.write_file(bed.folder / "none/file", b"", 0o644))


def an_erased_file_is_gone(bed: Bed) -> None:
    path, link, missing = (bed.folder / name for name in ("erased", "erased-link", "missing"))
    bed.plant(path, b"a private key" * 999)
    bed.plant(link, b"erased", kind="link")
    text = refused(DocumentError, lambda: bed.host.erase_file(link))
    assert text == f"{link}: is a symbolic link"
    assert bed.host.read_file(path, 99999) == b"a private key" * 999
    bed.host.erase_file(path)
    refused(MissingError, lambda: bed.host.read_file(path, 99999))
    text = refused(MissingError, lambda: bed.host.erase_file(missing))
    assert text == f"{missing} does not exist"


def a_folder_that_is_there_is_not_made_again(bed: Bed) -> None:
    """Nor one without the folder above it: what was planted in the way is noticed."""
    path = bed.folder / "made"
    assert not bed.host.is_folder(path)
    bed.host.make_folder(path, 0o700)
    assert bed.host.is_folder(path)
    assert bed.look(path)[1] == 0o700
    refused(FileExistsError, lambda: bed.host.make_folder(path, 0o755))
    refused(FileNotFoundError, lambda: bed.host.make_folder(bed.folder / "none/deep", 0o755))
    bed.plant(bed.folder / "file")
    refused(FileExistsError, lambda: bed.host.make_folder(bed.folder / "file", 0o755))
    assert not bed.host.is_folder(bed.folder / "file")


def a_program_is_a_file_that_may_be_executed(bed: Bed) -> None:
    bed.plant(bed.folder / "program", b"#!", mode=0o755)
    bed.plant(bed.folder / "plain", b"#!", mode=0o644)
    assert bed.host.is_program(bed.folder / "program")
    assert not bed.host.is_program(bed.folder / "plain")
    assert not bed.host.is_program(bed.folder / "missing")


def time_goes_on(bed: Bed) -> None:
    before, wall = bed.host.read_timer(), bed.host.read_clock()
    bed.host.sleep(0.02)
    assert bed.host.read_timer() - before >= 0.02
    assert bed.host.read_clock() >= wall
    assert wall.tzinfo is UTC


# -- mounts


def an_overlay_shows_both_and_takes_what_is_written(bed: MountBed) -> None:
    lower, upper, work = (bed.folder / name for name in ("lower", "upper", "work"))
    for folder in (lower, upper, work):
        bed.host.make_folder(folder, 0o755)
    bed.plant(lower / "old", b"old")
    bed.host.mount_overlay(lower, upper, work, Flag.NOSUID | Flag.NODEV)
    assert bed.flags(lower) == Flag.NOSUID | Flag.NODEV
    bed.host.write_file(lower / "new", b"new", 0o644)
    assert bed.host.read_file(lower / "old", 9) == b"old"
    assert bed.host.read_file(lower / "new", 9) == b"new"
    bed.host.unmount(lower)
    assert bed.host.read_file(lower / "old", 9) == b"old"
    refused(MissingError, lambda: bed.host.read_file(lower / "new", 9))


def what_is_planted_in_an_upper_folder_is_seen(bed: MountBed) -> None:
    """Which is why such a folder is made new, and one that is there refused."""
    lower, upper, work = (bed.folder / name for name in ("below", "planted", "beside"))
    for folder in (lower, upper, work):
        bed.host.make_folder(folder, 0o755)
    bed.plant(upper / "shadow", b"evil")
    bed.host.mount_overlay(lower, upper, work, Flag.NOSUID | Flag.NODEV)
    assert bed.host.read_file(lower / "shadow", 9) == b"evil"
    bed.host.unmount(lower)


def an_overlay_needs_its_folders(bed: MountBed) -> None:
    bed.host.make_folder(bed.folder / "alone", 0o755)
    missing = bed.folder / "missing"
    refused(
        MachineOSError,
        lambda: bed.host.mount_overlay(bed.folder / "alone", missing, missing, Flag.NODEV),
    )


def a_bound_folder_is_read_only(bed: MountBed) -> None:
    source, target = bed.folder / "source", bed.folder / "bound"
    for folder in (source, target):
        bed.host.make_folder(folder, 0o755)
    bed.plant(source / "file", b"x")
    bed.host.bind(source, target)
    assert bed.flags(target) == Flag.RDONLY | Flag.NOSUID | Flag.NODEV
    assert bed.host.read_file(target / "file", 9) == b"x"
    refused(OSError, lambda: bed.host.write_file(target / "more", b"", 0o644))
    bed.host.write_file(source / "more", b"y", 0o644)
    assert bed.host.read_file(target / "more", 9) == b"y"
    bed.host.unmount(target)
    refused(MissingError, lambda: bed.host.bind(bed.folder / "missing", target))
    refused(MissingError, lambda: bed.host.bind(source, bed.folder / "missing"))


def a_mount_has_the_flags_that_it_was_given(bed: MountBed) -> None:
    target = bed.folder / "mounted"
    bed.host.make_folder(target, 0o755)
    for flags in (SAFE, Flag.NOSUID, Flag.NONE):
        bed.host.mount(Path("none"), target, "tmpfs", flags)
        assert bed.flags(target) == flags
        bed.host.unmount(target)
        assert bed.flags(target) is None
    bed.host.mount(Path("none"), target, "tmpfs", SAFE)
    refused(OSError, lambda: bed.host.make_folder(target / "deep", 0o755))
    bed.host.unmount(target)
    refused(MissingError, lambda: bed.host.mount(Path("none"), target / "no", "tmpfs", SAFE))
    refused(ToolError, lambda: bed.host.mount(Path("none"), target, "nosuchfs", SAFE))
    refused(ToolError, lambda: bed.host.unmount(target))


def mounts_move_with_those_below_them(bed: MountBed) -> None:
    """The place must be one whose mounts are seen by nobody else."""
    top = bed.folder / "private"
    bed.host.make_folder(top, 0o755)
    bed.host.mount(Path("none"), top, "tmpfs", Flag.NOSUID)
    source, target = top / "from", top / "to"
    for folder in (source, target):
        bed.host.make_folder(folder, 0o755)
    bed.host.mount(Path("none"), source, "tmpfs", Flag.NODEV)
    bed.host.make_folder(source / "deep", 0o755)
    bed.host.mount(Path("none"), source / "deep", "tmpfs", Flag.NOEXEC)
    bed.host.move(source, target)
    assert bed.flags(source) is None
    assert bed.flags(target) == Flag.NODEV
    assert bed.flags(target / "deep") == Flag.NOEXEC
    refused(ToolError, lambda: bed.host.move(source, target))
    refused(MissingError, lambda: bed.host.move(target, top / "missing"))


# -- disks


def disks_and_partitions_are_listed(bed: DiskBed) -> None:
    assert bed.host.list_partitions() == (
        Partition("vda", "vda1", "esp"),
        Partition("vda", "vda2", "machine-config"),
    )
    assert bed.host.list_partitions()[1].device == Path("/dev/vda2")
    assert bed.host.list_disks() == (Path("/dev/vda"), Path("/dev/vdb"))
    assert bed.host.list_optical() == (Path("/dev/sr0"),)


def labels_are_read_without_mounting(bed: DiskBed) -> None:
    for kind, label in (("vfat", "trust-data"), ("iso9660", "OCI-BOOT"), ("none", "")):
        assert bed.host.read_label(bed.labelled(kind, label)) == label
    assert bed.host.read_label(Path("/dev/no-such-device")) == ""


def a_header_is_what_lies_on_the_disk(bed: DiskBed) -> None:
    header = bed.host.read_header(bed.luks(KEY), HEADER_SIZE)
    assert len(header) == HEADER_SIZE
    record = header[RECORD_OFFSET:]
    check_header(Secret(KEY), header[:RECORD_OFFSET], record, what="disk")
    refused(
        VerificationError,
        lambda: check_header(Secret(OTHER_KEY), header[:RECORD_OFFSET], record, what="disk"),
    )
    refused(OSError, lambda: bed.host.read_header(Path("/dev/no-such-device"), 1))


def another_key_does_not_open(bed: DiskBed) -> None:
    device = bed.luks(KEY)
    copy = bed.folder / "header"
    bed.host.write_file(copy, bed.host.read_header(device, HEADER_SIZE), 0o600)
    text = refused(
        VerificationError,
        lambda: bed.host.open_luks(device, "contract-other", copy, Secret(OTHER_KEY)),
    )
    assert text.startswith(f"{device}: does not open with this machine's key: ")


# -- stores and media


def an_image_comes_with_its_publishers_signatures(bed: StoreBed) -> None:
    manifest, signatures = bed.host.read_image(bed.store, bed.target, bed.publisher)
    assert [layer.digest for layer in manifest.layers] == list(signatures)
    assert bed.host.read_image(bed.store, bed.target, bed.stranger) == (manifest, {})


def an_image_that_was_changed_is_refused(bed: StoreBed) -> None:
    bed.spoil()
    refused(MachineOSError, lambda: bed.host.read_image(bed.store, bed.target, bed.publisher))


def a_manifest_is_verified_for_one_product(bed: StoreBed) -> None:
    name, tag = "machine/install", "1.0.0"

    def fetch(product: UUID, ca_pem: bytes, name: str = name) -> object:
        return bed.host.fetch_manifest(bed.layouts, name, tag, ca_pem, product)

    found = bed.host.fetch_manifest(bed.layouts, name, tag, bed.ca_pem, bed.product)
    assert bed.target in found.install.targets
    assert found.publisher == bed.publisher
    refused(PolicyError, lambda: fetch(UUID(int=7), bed.ca_pem))
    refused(SignatureError, lambda: fetch(bed.product, b"no CA"))
    refused(MissingError, lambda: fetch(bed.product, bed.ca_pem, "machine/other"))


FILES: tuple[Callable[[Bed], None], ...] = (
    files_are_read_whole_up_to_a_limit,
    what_is_no_regular_file_is_not_read,
    a_secret_is_read_and_not_shown,
    a_part_of_a_file_is_read,
    a_folder_lists_so_many_names,
    small_texts_are_read_or_empty,
    files_are_written_whole_with_their_mode,
    an_erased_file_is_gone,
    a_folder_that_is_there_is_not_made_again,
    a_program_is_a_file_that_may_be_executed,
    time_goes_on,
)
MOUNTS: tuple[Callable[[MountBed], None], ...] = (
    an_overlay_shows_both_and_takes_what_is_written,
    what_is_planted_in_an_upper_folder_is_seen,
    an_overlay_needs_its_folders,
    a_bound_folder_is_read_only,
    a_mount_has_the_flags_that_it_was_given,
    mounts_move_with_those_below_them,
)
DISKS: tuple[Callable[[DiskBed], None], ...] = (
    disks_and_partitions_are_listed,
    labels_are_read_without_mounting,
    a_header_is_what_lies_on_the_disk,
    another_key_does_not_open,
)
STORES: tuple[Callable[[StoreBed], None], ...] = (
    an_image_comes_with_its_publishers_signatures,
    an_image_that_was_changed_is_refused,
    a_manifest_is_verified_for_one_product,
)
