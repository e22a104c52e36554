"""The names of a machine's files, which other programs and older versions rely on."""

from __future__ import annotations

from pathlib import Path

from machineos.vm.paths import MachinePaths, fits_a_socket

PATHS = MachinePaths(Path("/c/a/machine.yaml"), Path("/s/a"), Path("/r/x"), Path("/l/a"))


def test_every_file_has_its_name() -> None:
    assert {
        name: str(getattr(PATHS, name))
        for name in (
            "record", "uefi_code", "uefi_nvram", "tpm", "console_log", "qemu_log", "swtpm_log",
            "qemu_pid", "swtpm_pid", "events", "event_log", "qmp", "console", "tpm_control", "vnc",
        )
    } == {
        "record": "/s/a/run.json",
        "uefi_code": "/s/a/uefi-code.fd",
        "uefi_nvram": "/s/a/uefi-nvram.qcow2",
        "tpm": "/s/a/tpm",
        "console_log": "/s/a/console.log",
        "qemu_log": "/s/a/qemu.log",
        "swtpm_log": "/s/a/swtpm.log",
        "qemu_pid": "/s/a/qemu.pid",
        "swtpm_pid": "/s/a/swtpm.pid",
        "events": "/s/a/events",
        "event_log": "/s/a/events.out",
        "qmp": "/r/x/qmp.sock",
        "console": "/r/x/console.sock",
        "tpm_control": "/r/x/tpm.sock",
        "vnc": "/r/x/vnc.sock",
    }  # fmt: skip


def test_a_disk_is_in_the_machines_folder_unless_its_name_is_a_path() -> None:
    assert PATHS.disk("a.qcow2") == Path("/s/a/a.qcow2")
    assert PATHS.disk("/d/a.qcow2") == Path("/d/a.qcow2")


def test_a_unix_socket_has_107_bytes() -> None:
    room = 107 - len("/console.sock")
    assert fits_a_socket(Path("/" + "d" * (room - 1)))
    assert not fits_a_socket(Path("/" + "d" * room))
