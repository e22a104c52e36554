from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.core.command import Command
from machineos.errors import MissingError
from machineos.host.pack.depmod import (
    TABLES,
    ModuleTable,
    firmware_command,
    index_command,
    module_name,
    parse_table,
)

# As depmod 30 wrote them for 6.12.
DEP = """\
kernel/drivers/md/dm-mod.ko.xz:
kernel/drivers/md/dm-bufio.ko.xz: kernel/drivers/md/dm-mod.ko.xz
kernel/drivers/md/dm-verity.ko.xz: kernel/drivers/md/dm-bufio.ko.xz kernel/drivers/md/dm-mod.ko.xz
kernel/fs/fat/vfat.ko.xz: kernel/fs/fat/fat.ko.xz
kernel/fs/fat/fat.ko.xz:
"""
ALIAS = """\
# Aliases extracted from modules themselves.
alias virtio:d00000002v* virtio_blk
alias fs-vfat vfat
alias broken
"""
BUILTIN = "kernel/fs/ext4/ext4.ko\nkernel/drivers/char/tpm/tpm-crb.ko\n\n"


@pytest.fixture
def table() -> ModuleTable:
    return parse_table(DEP, ALIAS, BUILTIN)


def test_the_command() -> None:
    assert index_command(Path("r"), "6.1") == Command(("depmod", "-b", "r", "6.1"), 120.0)
    assert firmware_command([Path("a.ko"), Path("b.ko")]) == Command(
        ("modinfo", "-F", "firmware", "a.ko", "b.ko"), 120.0
    )
    assert TABLES == ("modules.dep", "modules.alias", "modules.builtin")


def test_what_is_needed_comes_first(table: ModuleTable) -> None:
    names = [module_name(path) for path in table.load_order(["dm-verity", "vfat", "dm_bufio"])]
    assert names == ["dm_mod", "dm_bufio", "dm_verity", "fat", "vfat"]


def test_built_in_ones_vanish(table: ModuleTable) -> None:
    assert table.load_order(["ext4", "tpm-crb", "tpm_crb"]) == ()


def test_one_that_is_not_there(table: ModuleTable) -> None:
    with pytest.raises(MissingError, match="no module zfs"):
        table.load_order(["vfat", "zfs"])


def test_aliases(table: ModuleTable) -> None:
    assert table.aliases == (("virtio:d00000002v*", "virtio_blk"), ("fs-vfat", "vfat"))


@pytest.mark.parametrize(
    ("path", "name"),
    [("kernel/drivers/md/dm-mod.ko.xz", "dm_mod"), ("a.ko", "a"), ("x/y-z.ko.zst", "y_z")],
)
def test_module_name(path: str, name: str) -> None:
    assert module_name(path) == name


@given(st.lists(st.lists(st.integers(0, 11), max_size=4), min_size=1, max_size=12), st.data())
def test_every_order_loads(raw: list[list[int]], data: st.DataObject) -> None:
    """modules.dep lists all that is needed, the deepest last: any set loads in the order given."""
    needs: dict[int, list[int]] = {}
    for number, entries in enumerate(raw):
        chain: dict[int, None] = {}
        for entry in sorted({e for e in entries if e < number}, reverse=True):
            chain.update(dict.fromkeys([entry, *needs[entry]]))
        needs[number] = sorted(chain, reverse=True)
    text = "".join(f"m{n}.ko: {' '.join(f'm{e}.ko' for e in d)}\n" for n, d in needs.items())
    wanted = data.draw(st.lists(st.sampled_from(sorted(needs)), max_size=6))
    order = parse_table(text, "", "").load_order(f"m{n}" for n in wanted)
    assert len(set(order)) == len(order)
    assert {f"m{n}.ko" for n in wanted} <= set(order)
    for place, path in enumerate(order):
        assert {f"m{e}.ko" for e in needs[int(path[1:-3])]} <= set(order[:place])
