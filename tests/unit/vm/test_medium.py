"""What a launch reads out of a guest's console."""

from __future__ import annotations

import re

import pytest

from machineos.vm import medium as launch

PANIC = "[    3.9] Kernel panic - not syncing: Fatal exception in interrupt\r\n"
OURS = "[    9.1] machineos: initrd for install, kernel 6.12\r\n"


@pytest.mark.parametrize(
    ("console", "expected"),
    [
        (PANIC, True),
        ("BdsDxe: starting Boot0001\r\n" + PANIC, True),
        (OURS + PANIC, False),  # our code ran: what it did is not known, so no second try
        (OURS, False),
        ("", False),
        ("[ 1.0] Kernel panic - not syncing: No working init found.\r\n", False),
    ],
)
def test_only_a_crash_before_our_code_is_tried_again(console: str, expected: bool) -> None:
    assert launch.crashed_early(console) is expected


@pytest.mark.parametrize(
    ("console", "expected"),
    [
        (OURS + "[ 9.2] machineos: BOOT FAILED: no TPM\r\n", "no TPM"),
        ("mosctl[3]: mosctl: the disk is too small\r\n", "the disk is too small"),
        ("a BOOT FAILED: first\r\nb BOOT FAILED: last\r\n", "last"),
        ("Verification failed: (0x1A) Security Violation\r\n", "the firmware refused"),
        ("one\r\ntwo\r\n\r\nthree\r\nfour\r\n", "two / three / four"),
        ("", "it wrote nothing on its console"),
    ],
)
def test_the_reason_is_the_guests_own(console: str, expected: str) -> None:
    assert launch.reason(console).startswith(expected)


def test_success_is_what_the_guest_said() -> None:
    said = "[   16.93] machineos: provisioned successfully: SN0001 of product x\r\n"
    assert re.search(launch.PROVISIONED, said)
    assert not re.search(launch.INSTALLED, said)
