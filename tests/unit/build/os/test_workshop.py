"""Names and keys of what is built: a variant for tests is never taken for a product."""

from __future__ import annotations

from pathlib import Path

import pytest

from changed import replace
from machineos.build.os import workshop
from machineos.build.os.workshop import DEBUG, ORDINARY, Workshop
from machineos.document.model.hardware import FIRMWARE, GUEST, Hardware, PackageName
from machineos.errors import MissingError, PolicyError
from machineos.host.pack.mmdebstrap import Suite
from vectors.clock import FixedClock

ROOT = Path("/keysets/k")
NONE = (PackageName("none"),)
SHOP = Workshop(Path("/cache"), FixedClock(), version="1", epoch=7)


def test_variants_never_share_a_folder() -> None:
    places = {
        workshop.hostfs_layout: "hostfs{}/oci",
        workshop.bootkit_folder: "bootkit{}",
        workshop.media_folder: "artifacts{}",
    }
    for place, name in places.items():
        assert place(ROOT, ORDINARY) == ROOT / name.format("")
        assert place(ROOT, DEBUG) == ROOT / name.format("-debug-console")


def test_only_a_keyset_for_tests_has_a_variant_for_tests() -> None:
    workshop.require_variant(ORDINARY, for_tests=False)
    workshop.require_variant(DEBUG, for_tests=True)
    with pytest.raises(PolicyError) as caught:
        workshop.require_variant(DEBUG, for_tests=False)
    assert caught.value.message == (
        "the debug-console variant is only for keysets marked FOR-TESTS-ONLY"
    )


def test_only_a_variant_for_tests_has_a_banner() -> None:
    assert SHOP.banner == ""
    assert replace(SHOP, variant=DEBUG).banner == (
        "DEBUG VARIANT, FOR TESTS ONLY: root shell on the console"
    )


BASIC = (
    "cryptsetup-bin", "lvm2", "python3-cryptography", "python3-msgspec", "shim-unsigned",
    "systemd-boot-efi",
)  # fmt: skip


def test_the_tree_of_a_guest_is_debians_and_free() -> None:
    assert workshop.boot_suite(GUEST) == Suite(
        name="trixie",
        variant="extract",
        packages=tuple(sorted((*BASIC, "linux-image-cloud-amd64"))),
    )
    assert (workshop.HOSTFS_TAG, workshop.BOOTKIT_TAG) == ("hostfs", "bootkit-squashfs")
    assert workshop.VERSION_LABEL == "org.opencontainers.image.version"


@pytest.mark.parametrize(
    ("hardware", "packages"),
    [
        (Hardware(), {"linux-image-amd64", "amd64-microcode", *FIRMWARE["common"]}),
        (Hardware(firmware=NONE), {"linux-image-amd64", "amd64-microcode"}),
        (Hardware(firmware=NONE, microcode="none"), {"linux-image-amd64"}),
        (
            Hardware(firmware=NONE, microcode="intel"),
            {"linux-image-amd64", "amd64-microcode", "intel-microcode"},
        ),
        (
            Hardware(kernel="cloud", firmware=(PackageName("firmware-bnx2x"),)),
            {"linux-image-cloud-amd64", "firmware-bnx2x"},
        ),
    ],
)
def test_hardware_brings_its_packages(hardware: Hardware, packages: set[str]) -> None:
    suite = workshop.boot_suite(hardware)
    assert set(suite.packages) - set(BASIC) == packages
    foreign = len(packages) > 1
    assert suite.components == (("main", "non-free-firmware") if foreign else ())


@pytest.mark.parametrize(
    ("release", "flavour"),
    [("6.12.1+deb13-cloud-amd64", "cloud"), ("6.12.1+deb13-amd64", "generic")],
)
def test_a_kernel_says_which_it_is(release: str, flavour: str) -> None:
    assert workshop.flavour_of(release) == flavour
    assert workshop.initrd_name("r", release, 7, "s").startswith(f"initrd-{flavour}-")
    assert workshop.modules_name("r", release, 7, "s").startswith(f"modules-{flavour}-")


def test_what_goes_in_is_in_the_names_of_the_cache() -> None:
    suites = [workshop.boot_suite(hardware) for hardware in (GUEST, Hardware())]
    names = {workshop.boot_root_name(suite, epoch) for suite in suites for epoch in (7, 8)}
    assert len(names) == 4
    assert {len(name) for name in names} == {len("boot-root-") + 16}
    names = {
        workshop.initrd_name(*given)
        for given in (
            ("root", "6.12", 7, "s"),
            ("other", "6.12", 7, "s"),
            ("root", "6.13", 7, "s"),
            ("root", "6.12", 8, "s"),
            ("root", "6.12", 7, "t"),
        )
    }
    assert len(names) == 5
    assert all(name.startswith("initrd-generic-") and len(name) == 31 for name in names)


PARTS = ("initrd-a", "sha256:m")


def test_all_that_an_image_depends_on_is_in_its_key() -> None:
    pems = [b"one", b"two"]
    keys = {
        workshop.bootkit_key(SHOP, PARTS, pems, "s"),
        workshop.bootkit_key(SHOP, ("initrd-b", "sha256:m"), pems, "s"),
        workshop.bootkit_key(SHOP, ("initrd-a", "sha256:n"), pems, "s"),
        workshop.bootkit_key(SHOP, PARTS, pems[::-1], "s"),
        workshop.bootkit_key(SHOP, PARTS, pems, "t"),
        workshop.bootkit_key(replace(SHOP, policy_version="2"), PARTS, pems, "s"),
        workshop.bootkit_key(replace(SHOP, version="2"), PARTS, pems, "s"),
        workshop.bootkit_key(replace(SHOP, variant=DEBUG), PARTS, pems, "s"),
        workshop.bootkit_key(replace(SHOP, epoch=8), PARTS, pems, "s"),
        workshop.bootkit_key(replace(SHOP, tpm_kind="integrated"), PARTS, pems, "s"),
        workshop.bootkit_key(replace(SHOP, hardware=Hardware()), PARTS, pems, "s"),
    }
    assert len(keys) == 11
    same = workshop.bootkit_key(replace(SHOP, cache=Path("/other")), PARTS, pems, "s")
    assert same in keys


def test_every_anchor_of_a_boot_is_in_it() -> None:
    assert workshop.ANCHORS == (
        "manifest-ca", "sudi-ca", "uefi-pk", "uefi-kek", "uefi-db", "uki-production",
        "tpmpol-luks", "tpmpol-admin",
    )  # fmt: skip


def test_the_newest_kernel_boots() -> None:
    assert workshop.newest_kernel(["6.12.1", "6.12.3", "6.12.2"], ROOT) == "6.12.3"
    with pytest.raises(MissingError, match="/keysets/k holds no kernel"):
        workshop.newest_kernel([], ROOT)
