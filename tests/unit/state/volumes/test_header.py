"""Whose a header is: the MAC and the keys derived for it (ADR 0005)."""

from __future__ import annotations

import hashlib
import hmac
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.core.secret import Secret
from machineos.errors import VerificationError
from machineos.state.volumes.header import (
    LABEL,
    NAME,
    RECORD_OFFSET,
    RECORD_SIZE,
    check_header,
    derive,
    header_record,
    passphrase,
)

KEY = Secret(bytes(range(32)))
OTHER = Secret(bytes(32))


def test_names_and_places_that_are_on_disks_in_the_field() -> None:
    assert (LABEL, NAME) == ("machine-config", "machine-config")
    assert (RECORD_OFFSET, RECORD_SIZE) == (1 << 20, 56)


def test_derived_keys_are_hkdf_and_differ() -> None:
    key = KEY.reveal()
    expected = hmac.new(key, b"machineos luks-header\x01", hashlib.sha256).digest()
    assert derive(KEY, b"luks-header") == Secret(expected)
    slot = hmac.new(key, b"machineos luks-passphrase\x01", hashlib.sha256).hexdigest()
    assert passphrase(KEY) == Secret(slot.encode())


def test_the_record() -> None:
    """Golden: what machines in the field have on their disks."""
    record = header_record(KEY, b"area")
    inner = derive(KEY, b"luks-header").reveal()
    mac = hmac.new(inner, b"area", hashlib.sha256).digest()
    assert record == b"machineos-luks-header-1\0" + mac
    assert len(record) == RECORD_SIZE


def test_a_refusal_names_the_device() -> None:
    with pytest.raises(VerificationError) as caught:
        check_header(KEY, b"area", b"", what="/dev/vda2")
    message = "/dev/vda2: its LUKS header was not written by this machine"
    assert caught.value.message == message


@given(st.binary(max_size=300), st.integers(0, 2400))
def test_any_change_of_a_small_area(area: bytes, place: int) -> None:
    record = header_record(KEY, area)
    check_header(KEY, area, record, what="x")
    for other in (area + b"\0", area[:-1] if area else b"\0", area[::-1] + b"x"):
        with pytest.raises(VerificationError):
            check_header(KEY, other, record, what="x")
    if area:
        bad = bytearray(area)
        bad[place // 8 % len(area)] ^= 1 << place % 8
        with pytest.raises(VerificationError):
            check_header(KEY, bytes(bad), record, what="x")
    with pytest.raises(VerificationError):
        check_header(OTHER, area, record, what="x")
    for short in (b"", record[:-1], record + b"\0"):
        with pytest.raises(VerificationError):
            check_header(KEY, area, short, what="x")


USE = """
import os, sys
from machineos.core.run import run
from machineos.core.secret import Secret
from machineos.state.volumes.header import header_record, passphrase
raw = bytearray(32)
os.readv(0, [raw])
key = Secret(raw)
raw[:] = bytes(32)
header_record(key, b"area")
opening = passphrase(key)
run(["cat"], input=opening.view(), stdout=os.open("/dev/null", os.O_WRONLY), timeout=60)
if sys.argv[1] == "wipe":
    opening.wipe()
    key.wipe()
print("used", flush=True)
os.read(0, 1)
"""


def left_in_memory(how: str) -> dict[str, int]:
    """Count what is left of a key in a process that used it as the boot does."""
    key = os.urandom(32)
    needles = {"key": key, "passphrase": passphrase(Secret(key)).reveal()}
    argv = [sys.executable, "-c", USE, how]
    found = dict.fromkeys(needles, 0)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(key)
        process.stdin.flush()
        assert process.stdout.readline() == b"used\n"
        for data in memory_of(process.pid):
            for name, needle in needles.items():
                found[name] += data.count(needle)
    return found


def memory_of(pid: int) -> Iterator[bytes]:
    """Yield what a process of ours has mapped and may write to."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in lines:
            span, flags = line.split()[:2]
            first, last = (int(end, 16) for end in span.split("-"))
            if flags.startswith("rw"):
                memory.seek(first)
                yield memory.read(last - first)


def test_nothing_of_a_key_is_left_in_a_process_that_overwrote_it() -> None:
    """Looked for in all its memory; the control, without overwriting, finds both."""
    kept = left_in_memory("keep")
    assert min(kept.values()) >= 1
    assert left_in_memory("wipe") == {"key": 0, "passphrase": 0}
