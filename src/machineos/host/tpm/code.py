"""Return codes of a TPM 2.0 in numbers and words.

Follows the TCG TPM 2.0 Library, part 2, "TPM_RC (Response Codes)".
Shared with the initrd: standard library only.
"""

from __future__ import annotations

from enum import IntEnum


class Rc(IntEnum):
    """TPM_RC: return codes without the number of the parameter, handle or session they blame."""

    ATTRIBUTES = 0x082
    HASH = 0x083
    VALUE = 0x084
    HIERARCHY = 0x085
    HANDLE = 0x08B
    RANGE = 0x08D
    AUTH_FAIL = 0x08E
    NONCE = 0x08F
    SIZE = 0x095
    INSUFFICIENT = 0x09A
    SIGNATURE = 0x09B
    KEY = 0x09C
    POLICY_FAIL = 0x09D
    INTEGRITY = 0x09F
    TICKET = 0x0A0
    BAD_AUTH = 0x0A2
    EXPIRED = 0x0A3
    POLICY_CC = 0x0A4
    INITIALIZE = 0x100
    FAILURE = 0x101
    DISABLED = 0x120
    AUTH_TYPE = 0x124
    AUTH_MISSING = 0x125
    POLICY = 0x126
    PCR = 0x127
    PCR_CHANGED = 0x128
    AUTH_UNAVAILABLE = 0x12F
    REBOOT = 0x130
    COMMAND_CODE = 0x143
    NV_RANGE = 0x146
    NV_SIZE = 0x147
    NV_LOCKED = 0x148
    NV_AUTHORIZATION = 0x149
    NV_UNINITIALIZED = 0x14A
    NV_SPACE = 0x14B
    NV_DEFINED = 0x14C
    OBJECT_MEMORY = 0x902
    SESSION_MEMORY = 0x903
    MEMORY = 0x904
    SESSION_HANDLES = 0x905
    YIELDED = 0x908
    TESTING = 0x90A
    NV_RATE = 0x920
    LOCKOUT = 0x921
    RETRY = 0x922
    NV_UNAVAILABLE = 0x923


def base_code(code: int) -> int:
    """Return ``code`` without the number of the parameter, handle or session it blames."""
    return code & 0x0BF if code & 0x080 else code


def describe_code(code: int) -> str:
    """Return a return code in words, such as ``TPM_RC_AUTH_FAIL (session 1, 0x98e)``."""
    base = base_code(code)
    try:
        name = f"TPM_RC_{Rc(base).name}"
    except ValueError:
        name = "return code"
    number = f"0x{code:03x}"
    if not code & 0x080:
        return f"{name} ({number})"
    position = code >> 8 & 0xF
    if code & 0x040:
        return f"{name} (parameter {position}, {number})"
    kind = "session" if position & 8 else "handle"
    return f"{name} ({kind} {position & 7}, {number})"
