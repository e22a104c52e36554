"""PID 1: the three ways out, and that there is no fourth."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.boot import (
    FakeFirst,
    FakeHost,
    FakeMachine,
    HandedOverError,
    PoweredOffError,
    RestartedError,
)
from machineos.boot.main import RESTART_DELAY, check_command_line, start
from machineos.errors import BootError, ToolError
from unit.boot.ends import handed_over, powered_off, refusal
from unit.boot.worlds import LINE, content, machine, settings, uki

PRODUCT = "11111111-2222-4333-8444-555555555555"
ORDER = ["mount_pseudo", "ignore_signals", "open_console", "load_drivers"]


def test_a_machine_hands_over() -> None:
    outcome = handed_over(machine())
    generation = content().fetched.verified.sha256[:12]
    assert outcome.lines == [
        "initrd for run, kernel 6.12.1",
        "the kernel enforces: only signed code can be executed",
        "the TPM gives out no key any more",
        f"this is SN0001 of product {PRODUCT}",
        f"generation {generation} verified",
        "the TPM gives out no secret any more",
        "handing over to systemd",
    ]
    assert outcome.host.init == ("/usr/lib/systemd/systemd",)


def test_an_installer_hands_over() -> None:
    outcome = handed_over(machine("install"))
    assert outcome.lines == [
        "initrd for install, kernel 6.12.1",
        "the kernel enforces: only signed code can be executed",
        "the TPM is a program outside of this virtual machine "
        "(virtual: made by IBM 'SW TPM', driver tpm_crb)",
        "the TPM gives out no key any more",
        f"this is SN0001 of product {PRODUCT}",
        "install medium /dev/sr0 verified",
        "the TPM gives out no secret any more",
        "handing over to the installer",
    ]
    assert outcome.host.init == ("/usr/lib/systemd/systemd", "--unit=machineos-install.target")


def test_provisioning_powers_off() -> None:
    assert powered_off(machine("provision")).lines == [
        "initrd for provision, kernel 6.12.1",
        "the TPM is a program outside of this virtual machine "
        "(virtual: made by IBM 'SW TPM', driver tpm_crb)",
        f"provisioned successfully: SN0001 of product {PRODUCT}",
        "the private key on /dev/vdb was overwritten (flash may keep a copy)",
        "done; powering off",
    ]


def test_a_banner_is_shown() -> None:
    outcome = machine(uki=uki(banner="FOR TESTS")).boot()
    assert outcome.lines[:2] == ["initrd for run, kernel 6.12.1", "*** FOR TESTS ***"]


def run(first: FakeFirst) -> type[BaseException]:
    with pytest.raises(BaseException) as caught:
        start(first)
    return caught.type


def test_what_comes_first() -> None:
    """Pseudo file systems, signals, console; the command line before the first module."""
    first = FakeFirst(machine().power_on())
    assert run(first) is HandedOverError
    assert first.did == ORDER
    first = FakeFirst(machine(command_line=f"{LINE} init=/bin/sh").power_on())
    assert run(first) is RestartedError
    assert first.did == [*ORDER[:3], "sleep 10.0"]


def test_a_failure_is_told_with_what_to_do_and_what_is_there() -> None:
    """A line each; then ten seconds, and a restart."""
    running = machine(command_line="").power_on()
    first = FakeFirst(running)
    before = running.timer
    assert run(first) is RestartedError
    assert running.lines == [
        "BOOT FAILED: the kernel command line is not the one that was signed: "
        f"word 1 is 'nothing', not {LINE.split()[0]!r}",
        "what to do: take add-ons and options of the boot entry away, and switch Secure Boot on",
        "disk vda",
        "restarting in 10 s",
    ]
    assert running.timer - before == RESTART_DELAY == 10.0


def test_settings_that_cannot_be_read_are_a_failure() -> None:
    running = machine()
    broken = running.uki.__class__(b"", b"{}", running.uki.anchors, None)
    reason = refusal(machine(uki=broken))
    assert reason.startswith("boot settings: ")


def test_an_error_that_nobody_foresaw_adds_the_last_places_of_its_trace() -> None:
    def deep(count: int) -> None:
        if not count:
            raise KeyError("a defect of ours")
        deep(count - 1)

    class Defective(FakeHost):
        def wait_for_drivers(self) -> None:
            deep(20)

    first = FakeFirst(Defective(machine()))
    assert run(first) is RestartedError
    lines = first.running.lines
    assert lines[1] == "BOOT FAILED: unexpected KeyError: 'a defect of ours'"
    assert lines[-2] == "disk vda"
    places = lines[2:-2]
    assert len(places) == 8
    assert all("test_main.py:" in place for place in places)
    assert lines[-1] == "restarting in 10 s"


def test_an_expected_error_has_no_trace() -> None:
    assert len(machine(disks=[]).boot().lines) == 7


class Unwilling(FakeFirst):
    """A machine that can be neither switched off nor restarted."""

    def power_off(self) -> None:
        raise ToolError("reboot(OFF): EPERM")

    def restart(self) -> None:
        self.did.append("restart")


def test_a_machine_that_does_not_go_off_restarts() -> None:
    first = Unwilling(machine("provision").power_on())
    assert run(first) is SystemExit
    assert first.did[-2:] == ["sleep 10.0", "restart"]
    assert "BOOT FAILED: reboot(OFF): EPERM" in first.running.lines
    assert first.running.lines[-1] == "restarting in 10 s"


def test_a_machine_that_does_not_restart_ends_pid_1() -> None:
    """Which is a kernel panic, and ``panic=10`` restarts it."""
    first = Unwilling(machine(command_line="").power_on())
    with pytest.raises(SystemExit) as caught:
        start(first)
    assert caught.value.code == 1


def test_without_the_pseudo_file_systems_the_kernel_panics() -> None:
    outcome = machine(mounts_fail=True).boot()
    assert outcome.end is OSError
    assert outcome.lines == ["panic: [Errno 19] No such device"]


@pytest.mark.parametrize("prepare", [lambda: machine(), lambda: machine("install")])
def test_a_root_that_returns_is_not_taken_for_the_end(prepare: Callable[[], FakeMachine]) -> None:
    """Had the switch no effect, the machine goes off; nothing runs on."""

    class Stubborn(FakeHost):
        def switch_root(self, *_: object) -> None:
            self.lines.append("switch")

    running = Stubborn(prepare())
    prepared = running.machine
    prepared.tpm.power_cycle()
    prepared.tpm.extend(7, prepared.secure_boot)
    prepared.tpm.extend(11, prepared.uki.measured)
    assert run(FakeFirst(running)) is PoweredOffError
    assert running.lines[-2:] == ["switch", "done; powering off"]


# -- the command line


@pytest.mark.parametrize("line", [LINE, LINE + "\n", "  " + LINE.replace(" ", "  ")])
def test_the_signed_command_line(line: str) -> None:
    check_command_line(settings(), line)


@pytest.mark.parametrize(
    "line",
    [
        f"{LINE} init=/bin/sh", f"init=/bin/sh {LINE}", f"{LINE} rd.break", f"{LINE} single",
        f"{LINE} systemd.debug_shell", f"{LINE} ipe.enforce=0", f"{LINE} lockdown=none",
        LINE.replace("ipe", "yama"), LINE.removesuffix(" lockdown=integrity"), "", LINE.upper(),
        f"{LINE} {LINE}", f"{LINE} --", " ".join(reversed(LINE.split())), f"{LINE}\0init=/bin/sh",
    ],
)  # fmt: skip
def test_any_other_command_line(line: str) -> None:
    """Row 20 of the attacks."""
    with pytest.raises(BootError, match="not the one that was signed"):
        check_command_line(settings(), line)


@given(st.text(max_size=120))
def test_any_addition(text: str) -> None:
    if not text.split():
        check_command_line(settings(), LINE + text)
        return
    for line in (f"{LINE} {text}", f"{text} {LINE}"):
        with pytest.raises(BootError):
            check_command_line(settings(), line)
