"""The ordinary variant, which is what products get: nothing to log in with (issue 2, part 6)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from machineos.build.os import appliance, uki, workshop
from machineos.build.os.bootkit import Anchored
from machineos.core.run import run
from machineos.errors import PolicyError
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.documents import parse_manifest
from vm.appliance import Bench
from waiting import PATIENCE

pytestmark = pytest.mark.tool("mksquashfs")

FORBIDDEN = (
    {"sh", "bash", "dash", "rbash", "zsh", "ksh", "busybox", "csh", "ash"}  # shells
    | {"apt", "apt-get", "apt-cache", "dpkg", "dpkg-deb", "pip", "pip3", "snap"}  # packages
    | {"gcc", "cc", "c++", "g++", "as", "ld", "make", "perl", "tcc", "clang"}  # compilers
    | {"login", "su", "sudo", "agetty", "getty", "sulogin", "passwd", "sshd", "telnetd"}  # login
)


@pytest.fixture(scope="module")
def root(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The ordinary root file system, mounted from its layer."""
    shop = bench.shop(workshop.ORDINARY)
    descriptor = appliance.build_hostfs(bench.keyset.root, shop)
    layout = LayoutRepository(workshop.hostfs_layout(bench.keyset.root, workshop.ORDINARY))
    data = layout.blob_path(descriptor.digest).read_bytes()
    layer = parse_manifest(data, name="hostfs").layers[0]
    folder = tmp_path_factory.mktemp("root")
    path = layout.blob_path(layer.digest)
    run(["mount", "-t", "squashfs", "-o", "loop,ro", path, folder], timeout=PATIENCE)
    yield folder
    run(["umount", folder], timeout=PATIENCE)


def programs(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for path in root.rglob("*"):
        info = path.lstat()
        program = stat.S_ISREG(info.st_mode) and info.st_mode & 0o111
        if program or stat.S_ISLNK(info.st_mode):
            yield path, info


def test_no_shell_package_manager_compiler_or_login(root: Path) -> None:
    found = [
        path
        for path, _ in programs(root)
        if path.name in FORBIDDEN and path.parent.name in {"bin", "sbin", "libexec", "lib"}
    ]
    assert found == []
    assert (root / "usr/bin/python3").exists()  # it is a whole root, and we looked into it


def test_no_set_user_id_program(root: Path) -> None:
    assert [path for path, info in programs(root) if info.st_mode & 0o6000] == []


def test_nobody_can_log_in(root: Path) -> None:
    shells = {line.split(":")[6] for line in (root / "etc/passwd").read_text().splitlines()}
    assert shells == {"/usr/sbin/nologin"}
    hashes = {line.split(":")[1] for line in (root / "etc/shadow").read_text().splitlines()}
    assert hashes == {"!*"}


def test_no_unit_opens_a_console(root: Path) -> None:
    units = root / "usr/lib/systemd/system/multi-user.target.wants"
    wanted = sorted(path.name for path in units.iterdir())
    assert "mosd.service" in wanted
    masks = root / "etc/systemd/system"
    masked = {path.name for path in masks.iterdir() if str(path.readlink()) == "/dev/null"}
    consoles = {name for name in wanted if "debug" in name or "getty" in name}
    assert consoles <= masked
    assert {"getty@.service", "serial-getty@.service", "debug-shell.service",
            "emergency.service", "rescue.service"} <= masked  # fmt: skip


def test_no_keyset_but_one_for_tests_gets_the_debug_variant(bench: Bench) -> None:
    marker = bench.keyset.root / workshop.TEST_MARKER
    marker.rename(marker.with_suffix(".off"))
    try:
        with pytest.raises(PolicyError, match="FOR-TESTS-ONLY"):
            appliance.build_hostfs(bench.keyset.root, bench.shop())
        with pytest.raises(PolicyError, match="FOR-TESTS-ONLY"):
            appliance.build_bootkit(Anchored(bench.keyset), bench.shop())
    finally:
        marker.with_suffix(".off").rename(marker)


@pytest.mark.parametrize(
    "argv",
    [("mosb", "hostfs", "build"), ("mosb", "bootkit", "build"), ("trust", "launch"),
     ("trust", "keyset", "add")],
    ids=" ".join,
)  # fmt: skip
def test_no_command_offers_a_variant(bench: Bench, argv: tuple[str, ...]) -> None:
    text = bench.command(*argv, "--help").text
    assert "variant" not in text.lower()
    assert "debug" not in text.lower()
    refused = bench.command(*argv, "--variant", "debug-console", check=False)
    assert refused.status == 2


@pytest.mark.tool("cpio")
def test_the_initrd_is_small_and_has_no_shell(bench: Bench, tmp_path: Path) -> None:
    """Under 40 MiB, and of programs only Python and what opens the configuration."""
    kernel = workshop.bootkit_folder(bench.keyset.root, workshop.DEBUG) / "kernel.efi"
    packed = uki.read_sections(kernel.read_bytes())[".initrd"]
    assert len(packed) < 40 << 20
    (tmp_path / "initrd.zst").write_bytes(packed)
    with (tmp_path / "initrd").open("wb") as file:
        # The second archive lies behind the first and zeros, of which zstd complains at the end.
        run(["zstd", "-dqc", tmp_path / "initrd.zst"], stdout=file, timeout=PATIENCE, check=False)
    with (tmp_path / "initrd").open("rb") as file:
        names = run(["cpio", "-t", "--quiet"], stdin=file, timeout=PATIENCE).text.splitlines()
    programs = {name for name in names if name.startswith(("usr/bin/", "usr/sbin/"))}
    assert programs == {
        "usr/bin/python3", "usr/bin/python3.13", "usr/sbin/cryptsetup", "usr/sbin/integritysetup",
        "usr/sbin/lvm",
    }  # fmt: skip
    assert "init" in names
    assert not [name for name in names if name.rpartition("/")[2] in FORBIDDEN]
