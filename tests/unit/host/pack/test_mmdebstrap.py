from __future__ import annotations

from pathlib import Path

from machineos.core.command import Command
from machineos.host.pack.mmdebstrap import Suite, argv_build, build_command
from machineos.host.pack.unshare import argv_isolated


def test_names_no_mirror_of_its_own() -> None:
    argv = argv_build(Suite("trixie"), Path("/out.tar"))
    assert argv[-2:] == ["trixie", "/out.tar"]
    assert not any("://" in word for word in argv)


def test_passes_what_the_suite_says() -> None:
    suite = Suite("trixie", ("a", "b"), "extract", "https://m/", "2025", "/k.gpg")
    argv = argv_build(suite, Path("/out.tar"), archives=Path("/a b"))
    assert argv[-3:] == ["trixie", "/out.tar", "https://m/2025"]
    assert "--variant=extract" in argv
    assert "--include=a,b" in argv
    assert "--keyring=/k.gpg" in argv
    assert '--aptopt=Acquire::Check-Valid-Until "false"' in argv
    assert any("'/a b'" in word for word in argv)


def test_leaves_device_nodes_and_names_of_the_host_out() -> None:
    argv = argv_build(Suite("trixie"), Path("/out.tar"))
    assert "--skip=output/dev,output/mknod" in argv
    assert any("etc/resolv.conf" in word and "etc/hostname" in word for word in argv)


def test_it_runs_in_namespaces_of_its_own_with_its_files_where_we_say() -> None:
    suite, output = Suite("trixie"), Path("/out.tar")
    command = build_command(
        suite, output, epoch=7, temporary=Path("/tmp/w"), archives=Path("/kept")
    )
    assert command == Command(
        tuple(argv_isolated(argv_build(suite, output, archives=Path("/kept")))),
        3600.0,
        env=(("SOURCE_DATE_EPOCH", "7"), ("TMPDIR", "/tmp/w")),
        cwd=Path("/tmp/w"),
    )


def test_components_of_the_archive_are_said_when_they_are_not_the_usual() -> None:
    assert not [word for word in argv_build(Suite("t"), Path("/o")) if "components" in word]
    argv = argv_build(Suite("t", components=("main", "non-free-firmware")), Path("/o"))
    assert "--components=main,non-free-firmware" in argv
