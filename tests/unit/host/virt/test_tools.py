"""The programs themselves: QEMU's probe, qemu-img, swtpm_setup, and where virt-fw-vars is."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import UUID

import pytest

from machineos.core import run
from machineos.core.run import perform
from machineos.errors import MissingError, MissingToolError, ToolError
from machineos.host.virt import qemu, qemuimg, swtpm, tools
from machineos.host.virt.uefivars import PROGRAM, Enrolled
from waiting import PATIENCE


@pytest.mark.tool(qemu.PROGRAM)
def test_probe_runs_a_guest(tmp_path: Path) -> None:
    disk = tmp_path / "probe.img"
    disk.write_bytes(qemu.probe_disk())
    assert tools.probe("tcg", disk, deadline=PATIENCE) == ""


@pytest.mark.tool(qemu.PROGRAM)
def test_a_guest_that_hangs_is_killed(tmp_path: Path) -> None:
    disk = tmp_path / "hang.img"
    hang = b"\xfa\xf4\xeb\xfc".ljust(510, b"\0") + b"\x55\xaa"  # cli; hlt; jmp back
    disk.write_bytes(hang.ljust(1 << 20, b"\0"))
    assert tools.probe("tcg", disk, deadline=0.5) == (
        "a guest of five instructions did not end within 0.5 s"
    )
    arguments = os.fsencode(disk)
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert arguments not in entry.read_bytes()
        except OSError:
            continue  # it ended meanwhile, and it was not ours


@pytest.mark.tool(qemu.PROGRAM)
def test_an_accelerator_that_qemu_refuses_gives_its_words(tmp_path: Path) -> None:
    disk = tmp_path / "probe.img"
    disk.write_bytes(qemu.probe_disk())
    assert "invalid accelerator nosuch" in tools.probe("nosuch", disk, deadline=PATIENCE)


@pytest.mark.tool("qemu-img")
def test_an_image_is_copied_whole_or_not_at_all(tmp_path: Path) -> None:
    source, target = tmp_path / "a.raw", tmp_path / "b.qcow2"
    source.write_bytes(bytes(1 << 20))
    tools.convert_image(source, "raw", target, "qcow2")
    assert tools.describe_image(target, "qcow2") == qemuimg.Image("qcow2", 1 << 20, "")
    with pytest.raises(ToolError):
        tools.convert_image(source, "qcow2", tmp_path / "c", "raw")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.raw", "b.qcow2"]


@pytest.mark.tool("swtpm_setup")
def test_setup_makes_one_tpm_and_keeps_it(tmp_path: Path) -> None:
    state, log = tmp_path / "tpm", tmp_path / "swtpm.log"
    tools.set_up_tpm(state, log)
    made = state / swtpm.STATE_FILE
    assert made.stat().st_uid == os.getuid()
    assert state.stat().st_mode & 0o777 == 0o700
    assert "Successfully activated PCR banks sha256 among" in log.read_text()
    before = made.read_bytes()
    tools.set_up_tpm(state, log)
    assert made.read_bytes() == before


def test_a_store_needs_the_firmwares_template(tmp_path: Path) -> None:
    key = Enrolled(UUID(int=1), tmp_path / "c.pem")
    with pytest.raises(MissingError, match="is not a file"):
        tools.enroll(tmp_path / "none", tmp_path / "out", pk=key, kek=key, db=key)
    assert list(tmp_path.iterdir()) == []


def test_virt_fw_vars_is_looked_for_beside_our_python_first(tmp_path: Path) -> None:
    program = tmp_path / PROGRAM
    program.write_text("#!/bin/sh\n")
    assert tools.find_vars_program(tmp_path / "python3") == str(program)


def test_virt_fw_vars_of_the_system_comes_second_and_its_absence_says_what_to_do(
    tmp_path: Path,
) -> None:
    system = run.find(PROGRAM)
    try:
        found: str | None = tools.find_vars_program(tmp_path / "python3")
    except MissingToolError as error:
        found = None
        assert error.message == "virt-fw-vars is not installed"
        assert error.hint == (
            "scripts/setup installs it; in Debian 13 it is in python3-virt-firmware"
        )
    assert found == system


def test_scripts_setup_has_put_it_there() -> None:
    """As a tool of its own: the product's environment holds none of what it needs."""
    assert "--set-pk" in perform_help(tools.find_vars_program())


def perform_help(program: str) -> str:
    return run.run([program, "--help"], timeout=PATIENCE).text


def test_converting_names_both_formats() -> None:
    argv = qemuimg.convert_command(Path("a"), "raw", Path("b"), "qcow2").argv
    assert argv == ("qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", "a", "b")


@pytest.mark.tool("qemu-img")
def test_an_image_is_made_in_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "-odd.qcow2"
    perform(qemuimg.create_command(path, "qcow2", 1 << 20))
    assert tools.describe_image(path, "qcow2").size == 1 << 20
