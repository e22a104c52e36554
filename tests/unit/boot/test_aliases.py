"""Which drivers are wanted: the kernel's aliases against the patterns of the drivers."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.boot.aliases import buses, module_options, next_driver, served

DISK = "virtio:d00000002v00001AF4"
PRESENT = sorted({DISK, "virtio:d00000004v00001AF4", "pci:v00008086d00002922sv00001AF4bc01sc06i01",
                  "acpi:PNP0303:", "scsi:t-0x00"})  # fmt: skip
TABLE = (
    ("nvme:*", ("nvme.ko",)),
    ("virtio:d00000002v*", ("scsi.ko", "virtio.ko")),
    ("pci:v00008086*", ("scsi.ko", "ahci.ko")),
    ("virtio:*", ("virtio.ko",)),
)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("virtio:d00000002v*", [DISK]),
        ("virtio:d*", [DISK, "virtio:d00000004v00001AF4"]),
        ("virtio:d00000002v00001AF4", [DISK]),
        ("pci:v*d*sv*sd*bc01sc06i01*", []),
        ("pci:v*d*sv*bc01sc06i01*", ["pci:v00008086d00002922sv00001AF4bc01sc06i01"]),
        ("scsi:t-0x0[0-3]*", ["scsi:t-0x00"]),
        ("nvme:*", []),
        ("*PNP0303*", ["acpi:PNP0303:"]),
    ],
)
def test_what_a_driver_serves(pattern: str, expected: list[str]) -> None:
    assert [alias for alias in PRESENT if served(pattern, [alias])] == expected
    assert (next_driver([(pattern, ("x",))], PRESENT, ()) == ("x",)) == bool(expected)


@given(
    st.text("abv:*?[]0", min_size=1, max_size=8),
    st.lists(st.text("abv:[]0", min_size=1, max_size=8), max_size=8),
)
def test_the_short_cut_changes_nothing(pattern: str, present: list[str]) -> None:
    wanted = any(fnmatch.fnmatchcase(alias, pattern) for alias in present)
    assert next_driver([(pattern, ("x",))], present, ()) == (("x",) if wanted else None)


def test_which_buses_are_looked_at() -> None:
    assert buses(TABLE, (("pci:v1*", ()), ("scsi:t*", ()))) == {"nvme", "virtio", "pci", "scsi"}
    assert buses((("acpi:PNP0C14:*", ()),)) == {"acpi", "platform"}, "some lie on the platform bus"
    assert buses() == buses(()) == frozenset()


def test_the_first_driver_that_a_device_wants() -> None:
    assert next_driver(TABLE, PRESENT, ()) == ("scsi.ko", "virtio.ko")
    assert next_driver(TABLE, reversed(PRESENT), {"scsi.ko"}) == ("scsi.ko", "virtio.ko")
    assert next_driver(TABLE, PRESENT, {"scsi.ko", "virtio.ko"}) == ("scsi.ko", "ahci.ko")
    assert next_driver(TABLE, PRESENT, {"scsi.ko", "virtio.ko", "ahci.ko"}) is None
    assert next_driver(TABLE, [], ()) is None
    assert next_driver((), PRESENT, ()) is None


@pytest.mark.parametrize(
    ("line", "name", "options"),
    [
        ("quiet i6300esb.nowayout=1 panic=10", "i6300esb.ko", "nowayout=1"),
        (
            "usb-storage.delay_use=2 usb_storage.quirks=a.b",
            "usb-storage.ko",
            "delay_use=2 quirks=a.b",
        ),
        ("watchdog.open_timeout=60", "i6300esb.ko", ""),
        ("loop loop.max_part", "loop.ko", "max_part"),
    ],
)
def test_what_a_module_is_told(line: str, name: str, options: str) -> None:
    assert module_options(line, name) == options
