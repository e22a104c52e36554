"""How one command goes through: what is sent, what is believed, how often a busy TPM is asked."""

from __future__ import annotations

import hashlib
import hmac
import struct

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from machineos.errors import TpmError
from machineos.host.tpm.code import Rc
from machineos.host.tpm.session import Auth, Session, kdfa
from machineos.host.tpm.wire import (
    Command,
    Handle,
    Hierarchy,
    SessionKind,
    StorageKey,
    sized,
    u32,
)
from unit.host.tpm.scripted import NONCE, Counting, Scripted, answer, tpm_of

OWNER = Handle.of(Hierarchy.OWNER)
THEIRS = b"t" * 32


def mac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def point() -> StorageKey:
    numbers = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()
    x, y = numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big")
    return StorageKey(Handle(0x81000001, b"its name"), x, y)


# -- what is sent --------------------------------------------------------------------------------


def test_a_command_without_authorisation() -> None:
    wire = Scripted(answer(0, b"body"))
    with tpm_of(wire) as tpm:
        reader = tpm.run(Command.READ_PUBLIC, (Handle.of(0x81000001),), b"pp")
    assert wire.asked == [bytes.fromhex("8001 00000010 00000173 81000001") + b"pp"]
    assert reader.rest() == b"body"
    assert wire.closed


def test_a_command_with_a_password() -> None:
    wire = Scripted(answer(0, u32(4) + b"body" + bytes.fromhex("0000 01 0000"), 0x8002))
    with tpm_of(wire) as tpm:
        reader = tpm.run(Command.CLEAR, (OWNER,), b"pp", (Auth(None, b"pw"),))
    area = bytes.fromhex("40000009 0000 01 0002") + b"pw"
    head = struct.pack(">HIII", 0x8002, 14 + 4 + len(area) + 2, 0x126, 0x40000001)
    assert wire.asked == [head + u32(len(area)) + area + b"pp"]
    assert reader.rest() == b"body"


def test_a_handle_that_is_returned_stands_before_the_sizes() -> None:
    for auths, body, tag in (
        ((), u32(0x80000001) + b"body", 0x8001),
        ((Auth(),), u32(0x80000001) + u32(4) + b"body" + bytes.fromhex("0000 01 0000"), 0x8002),
    ):
        with tpm_of(Scripted(answer(0, body, tag))) as tpm:
            found, reader = tpm.execute(Command.LOAD_EXTERNAL, (), b"", auths, returns_handle=True)
        assert (found, reader.rest()) == (0x80000001, b"body")


def test_a_command_that_returns_no_handle_has_none() -> None:
    with tpm_of(Scripted(answer(0, b"body"))) as tpm:
        found, reader = tpm.execute(Command.GET_RANDOM, (), b"", (), returns_handle=False)
    assert (found, reader.rest()) == (0, b"body")


def test_a_session_and_a_password_in_one_command() -> None:
    """Both are in the area, in order, and what is hashed is what was sent."""
    session = Session(0x02000000, SessionKind.HMAC, b"key", THEIRS)
    handles = (Handle(0x1500020, b"name of an index"), OWNER)
    next_nonce = b"T" * 32
    rp_hash = hashlib.sha256(u32(0, Command.NV_READ) + sized(b"yes")).digest()
    entry = sized(next_nonce) + b"\1" + sized(mac(b"key", rp_hash + next_nonce + NONCE + b"\1"))
    body = u32(5) + sized(b"yes") + entry + bytes.fromhex("0000 01 0000")
    wire = Scripted(answer(0, body, 0x8002))
    with tpm_of(wire) as tpm:
        auths = (Auth(session), Auth(None, b"pw"))
        reader = tpm.run(Command.NV_READ, handles, sized(b"pp") + b"more", auths)
    assert reader.rest() == sized(b"yes")
    cp_hash = hashlib.sha256(
        u32(Command.NV_READ) + b"name of an index" + OWNER.name + sized(b"pp") + b"more"
    ).digest()
    area = bytes.fromhex("02000000") + sized(NONCE) + b"\1"
    area += sized(mac(b"key", cp_hash + NONCE + THEIRS + b"\1"))
    area += bytes.fromhex("40000009 0000 01 0002") + b"pw"
    sent = wire.asked[0]
    assert sent[10:18] == bytes.fromhex("01500020 40000001")
    assert sent[18:] == u32(len(area)) + area + sized(b"pp") + b"more"


# -- what is believed ----------------------------------------------------------------------------


def test_an_answer_that_the_tpm_did_not_make_is_not_used() -> None:
    session = Session(0x02000000, SessionKind.HMAC, b"key", THEIRS)
    forged = sized(b"T" * 32) + b"\1" + sized(bytes(32))
    for auths, area in (
        ((Auth(session),), forged),
        ((Auth(session), Auth(None, b"pw")), forged + bytes.fromhex("0000 01 0000")),
        ((Auth(None, b"pw"), Auth(session)), bytes.fromhex("0000 01 0000") + forged),
    ):
        wire = Scripted(answer(0, u32(3) + b"yes" + area, 0x8002))
        with tpm_of(wire) as tpm, pytest.raises(TpmError) as caught:
            tpm.run(Command.NV_READ, (OWNER,), sized(b""), auths)
        assert caught.value.message == "the TPM's answer to NV_READ was changed on its way"
        assert caught.value.hint == "something may sit between the processor and the TPM"


def test_bytes_after_the_authorisations_are_refused() -> None:
    wire = Scripted(answer(0, u32(0) + bytes.fromhex("0000 01 0000 ff"), 0x8002))
    with tpm_of(wire) as tpm, pytest.raises(TpmError, match="CLEAR has bytes too many"):
        tpm.run(Command.CLEAR, (OWNER,), b"", (Auth(),))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (answer(0)[:-1], "the TPM's answer is shorter than a header"),
        (answer(0) + b"x", "the TPM's answer to STARTUP has not the size it claims"),
        (answer(0, tag=0x8002), "the TPM's answer to STARTUP has the wrong tag"),
        (answer(0x101), "the TPM refused STARTUP: TPM_RC_FAILURE (0x101)"),
        (answer(0x98E, tag=0x8002), "the TPM refused STARTUP: TPM_RC_AUTH_FAIL (session 1, 0x98e)"),
    ],
)
def test_what_is_no_good_answer(given: bytes, message: str) -> None:
    with tpm_of(Scripted(given)) as tpm, pytest.raises(TpmError) as caught:
        tpm.run(Command.STARTUP)
    assert caught.value.message == message


def test_a_refusal_has_its_code_without_who_is_blamed() -> None:
    with tpm_of(Scripted(answer(0x98E))) as tpm, pytest.raises(TpmError) as caught:
        tpm.run(Command.STARTUP)
    assert caught.value.code == Rc.AUTH_FAIL


# -- a busy TPM ----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [Rc.RETRY, Rc.TESTING, Rc.YIELDED, Rc.NV_RATE])
def test_a_busy_tpm_is_asked_the_same_again(code: int) -> None:
    clock = Counting()
    wire = Scripted(answer(code), answer(code), answer(0))
    with tpm_of(wire, clock) as tpm:
        tpm.run(Command.STARTUP, parameters=b"pp")
    assert wire.asked == [wire.asked[0]] * 3
    assert clock.slept == pytest.approx([0.05, 0.1])


def test_a_tpm_that_stays_busy_is_given_up() -> None:
    clock = Counting()
    wire = Scripted(answer(Rc.RETRY))
    with tpm_of(wire, clock) as tpm, pytest.raises(TpmError) as caught:
        tpm.run(Command.STARTUP)
    assert (caught.value.message, caught.value.code) == (
        "the TPM stays too busy for STARTUP", Rc.RETRY,
    )  # fmt: skip
    assert len(wire.asked) == 40
    steps = [0.05 * step for step in range(1, 10)]
    assert clock.slept == pytest.approx([*steps, *[0.5] * 31])


def test_a_lockout_is_not_busy() -> None:
    clock = Counting()
    with tpm_of(Scripted(answer(Rc.LOCKOUT)), clock) as tpm, pytest.raises(TpmError):
        tpm.run(Command.STARTUP)
    assert clock.slept == []


# -- sessions ------------------------------------------------------------------------------------

STARTED = answer(0, u32(0x03000000) + sized(THEIRS))


def test_a_session_is_salted_and_flushed() -> None:
    key = point()
    wire = Scripted(STARTED, answer(0))
    with tpm_of(wire) as tpm, tpm.session(SessionKind.POLICY, key) as session:
        assert (session.handle, session.kind) == (0x03000000, SessionKind.POLICY)
        assert len(wire.asked) == 1
    started, flushed = wire.asked
    assert started[:2] + started[6:18] == bytes.fromhex("8001 00000176 81000001 40000007")
    assert started[18:52] == sized(NONCE)
    assert started[52:54] == (68).to_bytes(2, "big")
    assert started[122:] == bytes.fromhex("01 0006 0080 0043 000b")
    assert flushed == bytes.fromhex("8001 0000000e 00000165 03000000")


def test_the_key_of_a_session_comes_from_salt_and_nonces() -> None:
    """It cannot be known without the private half, so it is told by what it depends on."""
    wire = Scripted(STARTED, answer(0))
    with tpm_of(wire) as tpm, tpm.session(SessionKind.HMAC, point()) as session:
        assert session._key not in {b"", kdfa(b"", b"ATH", THEIRS, NONCE)}
        assert len(session._key) == 32
        assert session._nonce_tpm == THEIRS


def test_a_trial_session_has_no_key_and_no_cipher() -> None:
    wire = Scripted(STARTED, answer(0))
    with tpm_of(wire) as tpm, tpm.session(SessionKind.TRIAL) as session:
        assert session._key == b""
    parameters = sized(NONCE) + sized(b"") + bytes.fromhex("03 0010 000b")
    assert wire.asked[0][10:] == bytes.fromhex("40000007 40000007") + parameters


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (answer(0, u32(0x03000000) + sized(b"t" * 31)), "the TPM's nonce has the wrong size"),
        (answer(0, u32(0x03000000) + sized(b"t" * 33)), "the TPM's nonce has the wrong size"),
        (
            answer(0, u32(0x03000000) + sized(THEIRS) + b"x"),
            "the TPM's answer to START_AUTH_SESSION has bytes too many",
        ),
    ],
)
def test_a_session_that_does_not_start(given: bytes, message: str) -> None:
    with tpm_of(Scripted(given)) as tpm, pytest.raises(TpmError) as caught:
        with tpm.session(SessionKind.TRIAL):
            pass
    assert caught.value.message == message


def test_a_session_is_flushed_after_an_error_which_is_the_one_that_counts() -> None:
    wire = Scripted(STARTED, answer(Rc.HANDLE))
    with tpm_of(wire) as tpm, pytest.raises(KeyError), tpm.session(SessionKind.TRIAL):
        raise KeyError
    assert len(wire.asked) == 2


def test_flush_expects_an_empty_answer() -> None:
    with tpm_of(Scripted(answer(0, b"x"))) as tpm:
        with pytest.raises(TpmError, match="FLUSH_CONTEXT has bytes too many"):
            tpm.flush(1)
