"""What a bootkit is built for."""

from __future__ import annotations

import pytest

from machineos.document.model.hardware import GUEST, Hardware, PackageName

ONE, TWO = PackageName("firmware-bnx2x"), PackageName("firmware-qlogic")


@pytest.mark.parametrize(
    ("hardware", "updates"),
    [
        (Hardware(), "amd"),
        (GUEST, "none"),
        (Hardware(microcode="none"), "none"),
        (Hardware(kernel="cloud", microcode="intel"), "intel"),
    ],
)
def test_microcode_that_costs_nothing_goes_with_the_generic_kernel(
    hardware: Hardware, updates: str
) -> None:
    assert hardware.updates == updates


def test_firmware_by_word_and_by_package() -> None:
    none, common, everything = (
        Hardware(firmware=(PackageName(word),)) for word in ("none", "common", "all")
    )
    assert GUEST.packages == none.packages == ()
    assert Hardware().packages == common.packages == tuple(sorted(common.packages))
    assert len(common.packages) == 6
    assert set(everything.packages) - set(common.packages) == {
        "firmware-cavium", "firmware-netronome",
    }  # fmt: skip
    both = Hardware(firmware=(PackageName("common"), PackageName("firmware-netronome"), ONE))
    assert set(both.packages) == {*common.packages, "firmware-netronome"}
    assert Hardware(firmware=(ONE,)).packages == (ONE,)
    assert Hardware(kernel="cloud", firmware=(ONE,)).packages == (ONE,)


def test_what_is_given_wins() -> None:
    written = Hardware(kernel="cloud", firmware=(ONE,), microcode="intel")
    assert written.changed(None, (), None) == written
    changed = Hardware(kernel="generic", firmware=(TWO,), microcode="none")
    assert written.changed("generic", (TWO,), "none") == changed


@pytest.mark.parametrize("text", ["firmware-bnx2x", "a2", "lib+x.y-1"])
def test_names_of_packages(text: str) -> None:
    assert PackageName.parse(text) == text


@pytest.mark.parametrize(
    "text", ["", "a", "A2", "-a", "a b", "a,b", "a/testing", "x" * 101, "a2\n"]
)
def test_what_is_no_name_of_a_package(text: str) -> None:
    with pytest.raises(ValueError, match="is not the name of a Debian package"):
        PackageName.parse(text)


def test_its_line_is_the_same_for_what_makes_the_same_bootkit() -> None:
    assert GUEST.label == '{"kernel":"cloud","firmware":[],"microcode":"none"}'
    assert Hardware(firmware=(ONE,)).label == (
        '{"kernel":"generic","firmware":["firmware-bnx2x"],"microcode":"amd"}'
    )
    assert Hardware(microcode="amd").label == Hardware().label
    two = (PackageName("b-nonfree"), PackageName("a-nonfree"))
    assert Hardware(firmware=two).label == Hardware(firmware=(*reversed(two), two[0])).label
    assert Hardware(kernel="cloud").label != Hardware(kernel="cloud", microcode="intel").label
