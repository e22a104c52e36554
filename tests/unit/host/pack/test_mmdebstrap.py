from __future__ import annotations

from pathlib import Path

from machineos.host.pack.container import Bind
from machineos.host.pack.mmdebstrap import Suite, argv_build, build_box


def test_names_no_mirror_of_its_own() -> None:
    argv = argv_build(Suite("trixie"))
    assert argv[-2:] == ["trixie", "/tmp/root.tar"]
    assert not any("://" in word for word in argv)


def test_passes_what_the_suite_says() -> None:
    suite = Suite("trixie", ("a", "b"), "extract", "https://m/", "2025", "/k.gpg")
    argv = argv_build(suite, archives=True)
    assert argv[-3:] == ["trixie", "/tmp/root.tar", "https://m/2025"]
    assert "--variant=extract" in argv
    assert "--include=a,b" in argv
    assert "--keyring=/k.gpg" in argv
    assert '--aptopt=Acquire::Check-Valid-Until "false"' in argv
    assert any("/mnt/*.deb" in word for word in argv)


def test_leaves_device_nodes_and_names_of_the_host_out() -> None:
    argv = argv_build(Suite("trixie"))
    assert "--skip=output/dev,output/mknod" in argv
    assert any("etc/resolv.conf" in word and "etc/hostname" in word for word in argv)


def test_it_runs_in_a_container_with_its_files_where_we_say() -> None:
    suite = Suite("trixie")
    box = build_box(suite, epoch=7, temporary=Path("/some/w"), archives=Path("/kept"))
    assert box.argv == tuple(argv_build(suite, archives=True))
    assert (box.root, box.network, box.folder) == ("host", "host", "/tmp")
    assert box.binds == (
        Bind(Path("/some/w"), "/tmp", writable=True),
        Bind(Path("/kept"), "/mnt", writable=True),
    )
    given = dict(box.environment)
    assert (given["SOURCE_DATE_EPOCH"], given["TMPDIR"]) == ("7", "/tmp")
    alone = build_box(suite, epoch=7, temporary=Path("/w"))
    assert alone.binds == (Bind(Path("/w"), "/tmp", writable=True),)


def test_components_of_the_archive_are_said_when_they_are_not_the_usual() -> None:
    assert not [word for word in argv_build(Suite("t")) if "components" in word]
    argv = argv_build(Suite("t", components=("main", "non-free-firmware")))
    assert "--components=main,non-free-firmware" in argv
