"""What is in the layer of modules."""

from __future__ import annotations

from pathlib import Path

import pytest

from machineos.build.os import initrdplan
from machineos.build.os.modules import FOLDERS, chosen, modules_tree, named_firmware
from machineos.core.run import run
from machineos.host.pack.depmod import ModuleTable
from waiting import PATIENCE

KERNEL = "6.12.1"
ALWAYS = {f"kernel/drivers/boot/{name}.ko.xz": () for name in initrdplan.MODULES}
FILES = {
    f"kernel/boot/{name}.ko.xz": ()
    for each in initrdplan.FILESYSTEMS.values()
    for name in each
    if name not in initrdplan.MODULES
}


def table(**needs: tuple[str, ...]) -> ModuleTable:
    """A kernel with what every boot loads, and these modules (path without its end)."""
    more = {f"{path}.ko.xz": tuple(f"{each}.ko.xz" for each in on) for path, on in needs.items()}
    return ModuleTable({**ALWAYS, **FILES, **more}, (("pci:m*", "megaraid_sas"),), frozenset())


def layer(**needs: tuple[str, ...]) -> set[str]:
    """Return which modules beside those of every boot are in the layer."""
    found = chosen(table(**needs))
    assert list(found) == sorted(found)
    assert {*ALWAYS, *FILES} <= set(found)
    return {path.removesuffix(".ko.xz") for path in set(found) - {*ALWAYS, *FILES}}


def test_whole_folders_and_single_modules_with_what_they_need() -> None:
    dummy, card, core = "kernel/drivers/net/dummy", "kernel/drivers/net/ethernet/igb", "kernel/o/c"
    wireless, plip = "kernel/drivers/net/wireless/iwl", "kernel/drivers/net/dummyish"
    needs = {dummy: (), card: (core,), core: (), wireless: (core,), plip: (), "kernel/sound/s": ()}
    assert layer(**needs) == {dummy, card, core}


def test_what_undermines_the_lock_is_never_there() -> None:
    cuse, fuse = "kernel/drivers/char/cuse", "kernel/fs/fuse/fuse"
    user = "kernel/drivers/virtio/user"
    assert layer(**{cuse: (fuse,), fuse: (), user: (fuse,)}) == set()


def test_what_the_initrd_has_is_there_wherever_it_lies() -> None:
    assert layer(**{"kernel/strange/megaraid_sas": ()}) == {"kernel/strange/megaraid_sas"}


def test_no_folder_is_named_twice_and_none_plays_or_films() -> None:
    assert len(set(FOLDERS)) == len(FOLDERS)
    unwanted = ("sound", "drivers/media", "drivers/bluetooth", "drivers/net/wireless", "fs/fuse")
    assert not [each for each in FOLDERS for word in unwanted if word.startswith(each)]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([], ()),
        (["e100/a.bin", "not/there.bin"], ("e100/a.bin",)),
        (["bnx2/b.fw"], ("bnx2/b.fw.xz",)),
        (["ice/*.pkg"], ("ice/ddp/x.pkg", "ice/y.pkg")),
    ],
)
def test_only_firmware_that_a_module_names(names: list[str], found: tuple[str, ...]) -> None:
    present = ("ice/y.pkg", "ice/ddp/x.pkg", "e100/a.bin", "bnx2/b.fw.xz", "e100/licence")
    assert named_firmware(names, present) == found


@pytest.mark.tool("depmod")
def test_the_modules_of_this_kernel_with_their_index_and_a_place_for_firmware(
    tmp_path: Path,
) -> None:
    root, target = tmp_path / "root", tmp_path / "tree"
    source = root / "usr/lib/modules" / KERNEL
    (source / "kernel/fs").mkdir(parents=True)
    for name in ("one", "two"):
        _object(source / f"kernel/fs/{name}.ko", f"of/{name}.bin")
    (source / "modules.builtin").write_text("kernel/fs/in.ko\n")
    (root / "usr/lib/firmware/of").mkdir(parents=True)
    for name in ("one", "two"):
        (root / f"usr/lib/firmware/of/{name}.bin").write_text(name)
    (target / "left").mkdir(parents=True)
    assert modules_tree(root, KERNEL, target, ["kernel/fs/one.ko"]) == ("of/one.bin",)
    folder = target / "usr/lib/modules" / KERNEL
    assert [path.name for path in folder.rglob("*.ko")] == ["one.ko"]
    assert (folder / "modules.dep").read_text() == "kernel/fs/one.ko:\n"
    assert (folder / "modules.builtin").read_text() == "kernel/fs/in.ko\n"
    assert [path.name for path in (target / "usr/lib/firmware").rglob("*.bin")] == ["one.bin"]
    assert [path.name for path in target.iterdir()] == ["usr"]


def _object(path: Path, firmware: str) -> None:
    """Write an ELF file that says of itself what a module says."""
    notes = path.with_suffix(".notes")
    notes.write_bytes(f"firmware={firmware}\0license=GPL\0".encode())
    run(["objcopy", "--add-section", f".modinfo={notes}", "/bin/true", path], timeout=PATIENCE)
    notes.unlink()
