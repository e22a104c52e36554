"""The sections of a boot image, from values alone."""

from __future__ import annotations

from pathlib import Path

from machineos.build.os import bootimage, uki
from machineos.build.os.bootimage import Options
from machineos.build.os.initrdplan import Base
from machineos.core.word import RootHash

BASE = Base(Path("/b"), "6.12", ("loop.ko",), (("p", ("d.ko",)),), {"vfat": ("vfat.ko",)},
            (("w", ("esb.ko",)),))  # fmt: skip
VOLUME = RootHash("ab" * 32)
OPTIONS = Options(policy_version="0003", epoch=7)


def sections(archive: bytes = b"abc", options: Options = OPTIONS) -> dict[str, bytes]:
    return bootimage.sections_of(
        "6.12", linux=b"L", archive=archive, anchors=b"A", policy_key=b"K", options=options
    )


def test_the_image_for_every_day_has_the_predecessors_name() -> None:
    assert bootimage.MODES == ("run", "install", "provision")
    names = [bootimage.image_name(mode) for mode in bootimage.MODES]
    assert names == ["kernel.efi", "install.efi", "provision.efi"]


def test_the_initrd_is_told_what_it_was_built_of() -> None:
    settings = bootimage.settings_of("install", BASE, VOLUME, Options("0003", 7, "B"))
    assert settings.mode == "install"
    assert settings.policy_version == "0003"
    assert settings.command_line == bootimage.command_line("6.12")
    assert (settings.kernel, settings.epoch, settings.banner) == ("6.12", 7, "B")
    assert settings.modules_volume == VOLUME
    assert (settings.modules, settings.drivers) == (BASE.modules, BASE.drivers)
    assert (settings.filesystems, settings.watchdogs) == (BASE.filesystems, BASE.watchdogs)


def test_only_the_image_that_provisions_asks_for_a_kind_of_tpm() -> None:
    """The others find out by the policy, and a machine in the field is not to stop for it."""
    options = Options("0003", 7, tpm_kind="integrated")
    asked = {
        mode: bootimage.settings_of(mode, BASE, VOLUME, options).tpm_kind
        for mode in bootimage.MODES
    }
    assert asked == {"run": "", "install": "", "provision": "integrated"}
    assert bootimage.settings_of("provision", BASE, VOLUME, Options()).tpm_kind == ""


def test_only_hardware_takes_a_processor_that_is_held_for_a_hang() -> None:
    """A guest that was stopped or restored finds that of all its processors."""
    assert bootimage.command_line("6.12.1+deb13-cloud-amd64") == bootimage.COMMAND_LINE
    words = bootimage.command_line("6.12.1+deb13-amd64").split()
    assert words[:-2] == bootimage.COMMAND_LINE.split()
    assert words[-2:] == ["softlockup_panic=1", "watchdog_thresh=30"]


def test_the_command_line_locks_the_kernel_down() -> None:
    words = bootimage.COMMAND_LINE.split()
    for word in (
        "lockdown=confidentiality",
        "proc_mem.force_override=never",
        "initcall_blacklist=fuse_init,virtio_fs_init",
        "hardlockup_panic=1",
        "nmi_watchdog=1",
        "iTCO_wdt.nowayout=1",
        "i6300esb.nowayout=1",
        "sp5100_tco.nowayout=1",
        "wdat_wdt.nowayout=1",
        "audit=1",
        "intel_iommu=on",
        "iommu.strict=1",
        "audit_backlog_limit=1024",
        "systemd.import_credentials=no",
        "ia32_emulation=0",
        "panic=10",
        "oops=panic",
        "lsm=landlock,lockdown,yama,integrity,apparmor,ipe",
    ):
        assert word in words
    assert "init=/bin/sh" not in words


def test_the_second_archive_begins_at_a_multiple_of_four() -> None:
    for size in range(1, 6):
        initrd = sections(b"x" * size)[".initrd"]
        assert initrd == b"x" * size + bytes(-size % 4) + b"A"


def test_the_sections() -> None:
    found = sections()
    assert list(found) == [".osrel", ".cmdline", ".uname", ".pcrpkey", ".initrd", ".linux"]
    assert found[".cmdline"] == bootimage.command_line("6.12").encode() + b"\0"
    assert found[".osrel"] == b'NAME="machineOS"\nID=machineos\nVERSION_ID=0003\n'
    marked = sections(options=Options("0001", 0, "DEBUG"))[".osrel"]
    assert marked.endswith(b'VERSION_ID=0001\nVARIANT="DEBUG"\n')
    assert (found[".uname"], found[".pcrpkey"], found[".linux"]) == (b"6.12", b"K", b"L")


def test_what_is_measured_has_the_sbat_and_not_the_policy() -> None:
    found = sections()
    pcr11 = bootimage.measured(found, b"sbat")
    assert pcr11 == uki.measure({**found, ".sbat": b"sbat"})
    assert pcr11 != uki.measure(found)
    whole = bootimage.with_policies(found, ())
    assert list(whole)[-2:] == [".pcrsig", ".linux"]
    assert uki.measure({**whole, ".sbat": b"sbat"}) == pcr11


def test_microcode_is_measured_in_its_place_and_absent_without_a_word() -> None:
    given = {"linux": b"L", "archive": b"abc", "anchors": b"A", "policy_key": b"K"}
    made = bootimage.sections_of("6.12", **given, options=OPTIONS, microcode=b"M")
    assert made[".ucode"] == b"M"
    assert {**sections(), ".ucode": b"M"} == made
    assert bootimage.measured(made, b"S") != bootimage.measured(sections(), b"S")
    assert ".ucode" not in sections()
