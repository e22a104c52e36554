"""Sessions against other implementations of the mathematics, and byte by byte."""

from __future__ import annotations

import hmac

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode

from machineos.errors import TpmError
from machineos.host.tpm import session as tpm_session
from machineos.host.tpm.session import Auth, Session, SessionAttribute
from machineos.host.tpm.wire import Handle, Reader, SessionKind, StorageKey, sized

OURS, THEIRS = b"c" * 32, b"t" * 32
PASSWORD = b"hunter2"


def session(kind: SessionKind = SessionKind.HMAC, key: bytes = b"sessionkey") -> Session:
    made = Session(0x02000000, kind, key, THEIRS)
    made.roll(OURS)
    return made


def mac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def kdfa(key: bytes, label: bytes, context: bytes) -> bytes:
    """KDFa by another implementation."""
    return KBKDFHMAC(
        hashes.SHA256(), Mode.CounterMode, 32, 4, 4, CounterLocation.BeforeFixed,
        label=label, context=context, fixed=None,
    ).derive(key)  # fmt: skip


def test_the_bits_are_those_of_tpma_session() -> None:
    assert {one.name: one.value for one in SessionAttribute} == {
        "CONTINUE": 0x01, "DECRYPT": 0x20, "ENCRYPT": 0x40, "AUDIT": 0x80,
    }  # fmt: skip


def test_kdfa_is_sp800_108_in_counter_mode() -> None:
    found = tpm_session.kdfa(b"key", b"CFB", b"uu", b"vv")
    assert found == kdfa(b"key", b"CFB", b"uuvv")
    assert len(found) == 32


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 32, 100, 1024])
def test_cfb_is_what_another_implementation_computes(size: int) -> None:
    try:
        from cryptography.hazmat.decrepit.ciphers.modes import CFB
    except ImportError:
        from cryptography.hazmat.primitives.ciphers.modes import CFB
    key, vector, data = b"k" * 16, b"v" * 16, bytes(range(256))[:size] * (1 if size < 257 else 4)
    other = Cipher(algorithms.AES(key), CFB(vector)).encryptor()
    wanted = other.update(data) + other.finalize()
    assert tpm_session.cfb(key, vector, data, encrypt=True) == wanted
    assert tpm_session.cfb(key, vector, wanted, encrypt=False) == data


def test_kdfe_is_sp800_56a() -> None:
    other = ConcatKDFHash(hashes.SHA256(), 32, b"SECRET\0" + b"uu" + b"vv")
    assert tpm_session.kdfe(b"shared", b"SECRET", b"uu", b"vv") == other.derive(b"shared")


def test_the_key_of_a_session_is_kdfa_of_the_salt() -> None:
    found = tpm_session.session_key(b"salt", b"tpm", b"caller")
    assert found == kdfa(b"salt", b"ATH", b"tpmcaller")


def test_a_salt_is_what_the_other_half_of_the_key_derives() -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    numbers = private.public_key().public_numbers()
    x, y = numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big")
    key = StorageKey(Handle.of(1), x, y)
    salt, secret = tpm_session.make_salt(key)
    reader = Reader(secret, "X")
    their_x, their_y = reader.sized(), reader.sized()
    reader.end()
    assert (len(their_x), len(their_y)) == (32, 32)
    public = ec.EllipticCurvePublicNumbers(
        int.from_bytes(their_x, "big"), int.from_bytes(their_y, "big"), ec.SECP256R1()
    ).public_key()
    shared = private.exchange(ec.ECDH(), public)
    assert salt == ConcatKDFHash(hashes.SHA256(), 32, b"SECRET\0" + their_x + x).derive(shared)
    assert tpm_session.make_salt(key)[1] != secret


def test_a_salt_needs_a_point_of_the_curve() -> None:
    with pytest.raises(TpmError) as caught:
        tpm_session.make_salt(StorageKey(Handle.of(1), b"\1" * 32, b"\2" * 32))
    assert caught.value.message == "the storage key of the TPM is not a point of P-256"


def test_secrets_have_no_repr() -> None:
    assert repr(session()) == "Session(0x02000000, HMAC)"
    shown = repr(Auth(session(), PASSWORD, new_value=PASSWORD))
    assert "hunter2" not in shown
    assert "sessionkey" not in shown


@pytest.mark.parametrize(
    ("value", "kept"), [(b"", b""), (b"a\0", b"a"), (b"\0a\0b\0\0", b"\0a\0b"), (b"\0", b"")]
)
def test_the_tpm_keeps_no_zeros_at_the_end_of_a_password(value: bytes, kept: bytes) -> None:
    assert tpm_session.strip(value) == kept


# -- a command -----------------------------------------------------------------------------------


def test_a_password_stands_in_clear() -> None:
    entry = Auth(None, b"ab\0").entry(b"hash")
    assert entry == bytes.fromhex("40000009 0000 01 0002") + b"ab"


@pytest.mark.parametrize(
    ("more", "bits"),
    [
        ({}, 0x01),
        ({"decrypt": True}, 0x21),
        ({"encrypt": True}, 0x41),
        ({"audit": True}, 0x81),
        ({"decrypt": True, "encrypt": True, "audit": True}, 0xE1),
    ],
)
def test_a_session_says_what_it_does_and_proves_it(more: dict[str, bool], bits: int) -> None:
    entry = Auth(session(), PASSWORD + b"\0", **more).entry(b"hash")  # type: ignore[arg-type]
    proof = mac(b"sessionkey" + PASSWORD, b"hash" + OURS + THEIRS + bytes([bits]))
    assert entry == bytes.fromhex("02000000") + sized(OURS) + bytes([bits]) + sized(proof)


def test_a_policy_session_proves_no_password() -> None:
    entry = Auth(session(SessionKind.POLICY), PASSWORD).entry(b"hash")
    assert entry.endswith(mac(b"sessionkey", b"hash" + OURS + THEIRS + b"\1"))


def test_a_nonce_is_new_for_each_command() -> None:
    one = session()
    asked: list[int] = []

    def random(count: int) -> bytes:
        asked.append(count)
        return b"n" * count

    Auth(one).roll(random)
    Auth(None).roll(random)
    assert asked == [32]
    assert Auth(one).entry(b"hash")[4:38] == sized(b"n" * 32)


def test_before_the_first_command_there_is_no_nonce_of_ours() -> None:
    entry = Auth(Session(1, SessionKind.HMAC, b"key", THEIRS)).entry(b"hash")
    assert entry[4:6] == bytes(2)
    assert entry.endswith(mac(b"key", b"hash" + THEIRS + b"\1"))


def test_parameters_that_cannot_be_hidden() -> None:
    with pytest.raises(TpmError, match="answer to a command is too short"):
        Auth(session(), decrypt=True).hide(b"\0\5abc")


def test_only_the_first_parameter_is_hidden_and_only_if_that_was_asked_for() -> None:
    parameters = sized(b"a secret that is longer than one block") + b"rest"
    for plain in (Auth(None, decrypt=True), Auth(session()), Auth(session(), encrypt=True)):
        assert plain.hide(parameters) == parameters
    hidden = Auth(session(), PASSWORD + b"\0", decrypt=True).hide(parameters)
    assert hidden[:2] == parameters[:2]
    assert hidden[-4:] == b"rest"
    assert len(hidden) == len(parameters)
    material = kdfa(b"sessionkey" + PASSWORD, b"CFB", OURS + THEIRS)
    plain_text = tpm_session.cfb(material[:16], material[16:], hidden[2:-4], encrypt=False)
    assert plain_text == b"a secret that is longer than one block"


# -- an answer -----------------------------------------------------------------------------------

NEXT = b"T" * 32


def signed(key: bytes, nonce: bytes = NEXT, tail: bytes = b"\1") -> bytes:
    return sized(nonce) + tail + sized(mac(key, b"hash" + nonce + OURS + tail))


def test_an_answer_of_the_tpm_is_believed_and_its_nonce_kept() -> None:
    one = session()
    reader = Reader(signed(b"sessionkey" + PASSWORD) + b"more", "X")
    assert Auth(one, PASSWORD).check(b"hash", reader)
    assert reader.rest() == b"more"
    entry = Auth(one, PASSWORD).entry(b"hash")
    assert entry.endswith(mac(b"sessionkey" + PASSWORD, b"hash" + OURS + NEXT + b"\1"))


@pytest.mark.parametrize(
    "data",
    [
        signed(b"sessionkey"),
        signed(b"sessionkey" + PASSWORD, nonce=b"T" * 31),
        signed(b"sessionkey" + PASSWORD, nonce=b"T" * 33),
        signed(b"sessionkey" + PASSWORD)[:-1] + b"x",
        sized(NEXT) + b"\0" + signed(b"sessionkey" + PASSWORD)[35:],
        sized(b"U" * 32) + signed(b"sessionkey" + PASSWORD)[34:],
    ],
)
def test_an_answer_of_somebody_else_is_not_and_its_nonce_is_forgotten(data: bytes) -> None:
    one = session()
    assert not Auth(one, PASSWORD).check(b"hash", Reader(data, "X"))
    entry = Auth(one, PASSWORD).entry(b"hash")
    assert entry.endswith(mac(b"sessionkey" + PASSWORD, b"hash" + OURS + THEIRS + b"\1"))


def test_after_a_change_of_the_password_the_answer_is_proved_by_the_new_one() -> None:
    changing = Auth(session(), PASSWORD, b"new\0")
    assert changing.check(b"hash", Reader(signed(b"sessionkeynew"), "X"))
    changing = Auth(session(), PASSWORD, b"")
    assert changing.check(b"hash", Reader(signed(b"sessionkey"), "X"))


def test_the_answer_to_a_password_proves_nothing_but_is_read() -> None:
    reader = Reader(bytes.fromhex("0000 01 0000") + b"more", "X")
    assert Auth(None, PASSWORD).check(b"hash", reader)
    assert reader.rest() == b"more"
    for size in (1, 2, 4):
        with pytest.raises(TpmError, match="too short"):
            Auth(None).check(b"hash", Reader(bytes.fromhex("0000 01 0000")[:size], "X"))


def test_an_answer_is_shown_only_if_it_was_hidden() -> None:
    secret = b"what the TPM gave out, in two blocks"
    material = kdfa(b"sessionkey" + b"new", b"CFB", THEIRS + OURS)
    hidden = tpm_session.cfb(material[:16], material[16:], secret, encrypt=True)
    answer = sized(hidden) + b"rest"
    for plain in (Auth(None, encrypt=True), Auth(session()), Auth(session(), decrypt=True)):
        assert plain.show(answer) == answer
    shown = Auth(session(), PASSWORD, b"new\0", encrypt=True).show(answer)
    assert shown == sized(secret) + b"rest"
    with pytest.raises(TpmError, match="answer to a command is too short"):
        Auth(session(), encrypt=True).show(b"\0\5abc")


def test_the_two_directions_are_encrypted_differently() -> None:
    one = session()
    assert one.encrypt_command(b"", b"x" * 16) != one.decrypt_response(b"", b"x" * 16)
    assert one.encrypt_command(b"a", b"x" * 16) != one.encrypt_command(b"b", b"x" * 16)
