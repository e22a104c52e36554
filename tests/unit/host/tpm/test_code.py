"""Return codes: the numbers of the TCG's part 2, table TPM_RC, and the words for them."""

from __future__ import annotations

import pytest

from machineos.host.tpm.code import Rc, base_code, describe_code

RC_FMT1, RC_VER1, RC_WARN = 0x080, 0x100, 0x900
# As the table in part 2 gives them: each in its block, from zero.
NUMBERS = {
    "ATTRIBUTES": RC_FMT1 + 0x02, "HASH": RC_FMT1 + 0x03, "VALUE": RC_FMT1 + 0x04,
    "HIERARCHY": RC_FMT1 + 0x05, "HANDLE": RC_FMT1 + 0x0B, "RANGE": RC_FMT1 + 0x0D,
    "AUTH_FAIL": RC_FMT1 + 0x0E, "NONCE": RC_FMT1 + 0x0F, "SIZE": RC_FMT1 + 0x15,
    "INSUFFICIENT": RC_FMT1 + 0x1A, "SIGNATURE": RC_FMT1 + 0x1B, "KEY": RC_FMT1 + 0x1C,
    "POLICY_FAIL": RC_FMT1 + 0x1D, "INTEGRITY": RC_FMT1 + 0x1F, "TICKET": RC_FMT1 + 0x20,
    "BAD_AUTH": RC_FMT1 + 0x22, "EXPIRED": RC_FMT1 + 0x23, "POLICY_CC": RC_FMT1 + 0x24,
    "INITIALIZE": RC_VER1 + 0x00, "FAILURE": RC_VER1 + 0x01, "DISABLED": RC_VER1 + 0x20,
    "AUTH_TYPE": RC_VER1 + 0x24, "AUTH_MISSING": RC_VER1 + 0x25, "POLICY": RC_VER1 + 0x26,
    "PCR": RC_VER1 + 0x27, "PCR_CHANGED": RC_VER1 + 0x28, "AUTH_UNAVAILABLE": RC_VER1 + 0x2F,
    "REBOOT": RC_VER1 + 0x30, "COMMAND_CODE": RC_VER1 + 0x43, "NV_RANGE": RC_VER1 + 0x46,
    "NV_SIZE": RC_VER1 + 0x47, "NV_LOCKED": RC_VER1 + 0x48, "NV_AUTHORIZATION": RC_VER1 + 0x49,
    "NV_UNINITIALIZED": RC_VER1 + 0x4A, "NV_SPACE": RC_VER1 + 0x4B, "NV_DEFINED": RC_VER1 + 0x4C,
    "OBJECT_MEMORY": RC_WARN + 0x02, "SESSION_MEMORY": RC_WARN + 0x03, "MEMORY": RC_WARN + 0x04,
    "SESSION_HANDLES": RC_WARN + 0x05, "YIELDED": RC_WARN + 0x08, "TESTING": RC_WARN + 0x0A,
    "NV_RATE": RC_WARN + 0x20, "LOCKOUT": RC_WARN + 0x21, "RETRY": RC_WARN + 0x22,
    "NV_UNAVAILABLE": RC_WARN + 0x23,
}  # fmt: skip


def test_the_numbers_are_those_of_the_table() -> None:
    assert {code.name: code.value for code in Rc} == NUMBERS


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0x98E, "TPM_RC_AUTH_FAIL (session 1, 0x98e)"),
        (0xA8E, "TPM_RC_AUTH_FAIL (session 2, 0xa8e)"),
        (0xF8E, "TPM_RC_AUTH_FAIL (session 7, 0xf8e)"),
        (0x08B, "TPM_RC_HANDLE (handle 0, 0x08b)"),
        (0x18B, "TPM_RC_HANDLE (handle 1, 0x18b)"),
        (0x78B, "TPM_RC_HANDLE (handle 7, 0x78b)"),
        (0x88B, "TPM_RC_HANDLE (session 0, 0x88b)"),
        (0x1C4, "TPM_RC_VALUE (parameter 1, 0x1c4)"),
        (0xFC4, "TPM_RC_VALUE (parameter 15, 0xfc4)"),
        (0x921, "TPM_RC_LOCKOUT (0x921)"),
        (0x14A, "TPM_RC_NV_UNINITIALIZED (0x14a)"),
        (0x99D, "TPM_RC_POLICY_FAIL (session 1, 0x99d)"),
        (0x155, "return code (0x155)"),
        (0x1BF, "return code (handle 1, 0x1bf)"),
        (0x000, "return code (0x000)"),
    ],
)
def test_return_codes_have_words(code: int, words: str) -> None:
    assert describe_code(code) == words


@pytest.mark.parametrize(
    ("code", "base"),
    [
        (0x08B, 0x08B), (0x18B, 0x08B), (0x98E, 0x08E), (0x1C4, 0x084), (0xFFF, 0x0BF),
        (0x101, 0x101), (0x14A, 0x14A), (0x921, 0x921), (0x17F, 0x17F), (0, 0),
    ],
)  # fmt: skip
def test_who_is_blamed_is_not_part_of_the_code(code: int, base: int) -> None:
    assert base_code(code) == base
