"""Every command against a real software TPM, and against one that lies."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from hypothesis import given
from hypothesis import strategies as st

from fakes.swtpm import Editor, Recorder, SoftwareTpm, code_of, software_tpm
from machineos.errors import TpmError
from machineos.host.tpm import session as tpm_session
from machineos.host.tpm.code import Rc
from machineos.host.tpm.commands import Tpm
from machineos.host.tpm.session import Auth
from machineos.host.tpm.transport import DeviceTransport, SocketTransport, Transport
from machineos.host.tpm.wire import (
    ALG_SHA256,
    Command,
    Handle,
    Hierarchy,
    NvAttribute,
    NvPublic,
    Operation,
    Property,
    SessionKind,
    StorageKey,
    Ticket,
    rsa_public,
)
from unit.host.tpm.scripted import Scripted, answer, tpm_of
from vectors.certificates import key as rsa_key

OWNER = Handle.of(Hierarchy.OWNER)
INDEX = 0x1500050
OPEN = NvAttribute.OWNERWRITE | NvAttribute.AUTHREAD | NvAttribute.NO_DA
swtpm = pytest.mark.tool("swtpm")


@pytest.fixture(scope="module")
def chip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftwareTpm]:
    with software_tpm(tmp_path_factory.mktemp("tpm")) as running:
        yield running


@pytest.fixture
def tpm(chip: SoftwareTpm) -> Iterator[Tpm]:
    chip.wipe()
    with chip.open() as opened:
        yield opened


@pytest.fixture
def srk(tpm: Tpm) -> StorageKey:
    return _keep(tpm)


def _keep(tpm: Tpm) -> StorageKey:
    key = tpm.create_primary(Hierarchy.OWNER)
    tpm.evict_control(key, 0x81000001)
    tpm.flush(key.handle.value)
    return tpm.read_storage_key(0x81000001)


# -- one command after the other -----------------------------------------------------------------


@swtpm
def test_random_properties_and_banks(tpm: Tpm) -> None:
    first, second = tpm.get_random(32), tpm.get_random(32)
    assert len(first) == 32
    assert first != second
    assert tpm.nv_buffer == tpm.property(Property.NV_BUFFER_MAX) == 1024
    assert tpm.pcr_banks()[ALG_SHA256] == frozenset(range(24))
    tpm.startup()  # a second time does no harm


@swtpm
def test_extend_changes_the_pcr_that_is_named_and_no_other(tpm: Tpm) -> None:
    digest = hashlib.sha256(b"event").digest()
    tpm.pcr_extend(11, digest)
    assert tpm.pcr_read(11, 7) == {
        7: bytes(32),
        11: hashlib.sha256(bytes(32) + digest).digest(),
    }


@swtpm
def test_storage_key_persists_and_has_its_name(tpm: Tpm, srk: StorageKey) -> None:
    assert tpm.read_storage_key(0x81000001).name == srk.name
    assert tpm.handles(0x81000000) == (0x81000001,)
    assert tpm.handles(0x80000000) == ()
    with pytest.raises(TpmError, match="READ_PUBLIC: TPM_RC_HANDLE") as caught:
        tpm.read_storage_key(0x81000002)
    assert caught.value.code == Rc.HANDLE


@swtpm
def test_another_key_than_a_storage_key_salts_nothing(chip: SoftwareTpm, tpm: Tpm) -> None:
    public = rsa_public(rsa_key("x").public_key().public_numbers().n, 2048)
    handle = tpm.load_external(public)
    with pytest.raises(TpmError, match="not a P-256 storage root key"):
        tpm.read_storage_key(handle.value)


@swtpm
def test_signatures_give_tickets_only_when_right(tpm: Tpm) -> None:
    private = rsa_key("tpmpol-luks")
    handle = tpm.load_external(rsa_public(private.public_key().public_numbers().n, 2048))
    signature = private.sign(b"message", padding.PKCS1v15(), hashes.SHA256())
    digest = hashlib.sha256(b"message").digest()
    ticket = tpm.verify_signature(handle, digest, signature)
    assert (ticket.tag, ticket.hierarchy) == (0x8022, Hierarchy.OWNER)
    assert ticket.digest
    with pytest.raises(TpmError) as caught:
        tpm.verify_signature(handle, hashlib.sha256(b"other").digest(), signature)
    assert caught.value.code == Rc.SIGNATURE


@swtpm
@pytest.mark.parametrize("size", [1, 32, 1024, 1025, 2048])
def test_nv_holds_what_was_written(tpm: Tpm, srk: StorageKey, size: int) -> None:
    data = hashlib.shake_128(b"nv").digest(size)
    public = NvPublic(INDEX, OPEN, b"", size)
    with tpm.session(SessionKind.HMAC, srk) as session:
        tpm.nv_define(public, Auth(session))
        tpm.nv_write(public, data, Auth(session, decrypt=True), by=OWNER)
        stored = tpm.nv_read_public(INDEX)
        assert stored == public.written()
        assert tpm.nv_read(stored, Auth(session, encrypt=True)) == data
        assert tpm.nv_read(stored) == data
        tpm.nv_undefine(stored, Auth(session))
    assert INDEX not in tpm.handles(0x01000000)


@swtpm
def test_nv_faults_have_their_codes(tpm: Tpm) -> None:
    public = NvPublic(INDEX, OPEN, b"", 8)

    def fails(code: int, act: Callable[[], object]) -> None:
        with pytest.raises(TpmError) as caught:
            act()
        assert caught.value.code == code

    fails(Rc.HANDLE, lambda: tpm.nv_read_public(INDEX))
    fails(Rc.HANDLE, lambda: tpm.nv_read(public))
    tpm.nv_define(public)
    fails(Rc.NV_UNINITIALIZED, lambda: tpm.nv_read(public))
    fails(Rc.NV_DEFINED, lambda: tpm.nv_define(public))
    fails(Rc.NV_AUTHORIZATION, lambda: tpm.nv_read(public, by=OWNER))
    fails(Rc.NV_RANGE, lambda: tpm.nv_write(public, b"123456789", by=OWNER))


@swtpm
@pytest.mark.parametrize("password", [b"secret", b"ends in zeros\0\0"])
def test_passwords_of_hierarchies(tpm: Tpm, srk: StorageKey, password: bytes) -> None:
    public = NvPublic(INDEX, OPEN, b"", 8)
    with tpm.session(SessionKind.HMAC, srk) as session:
        hidden = Auth(session, decrypt=True)
        tpm.hierarchy_change_auth(Hierarchy.OWNER, password, hidden)
        tpm.nv_define(public, Auth(session, password))
        with pytest.raises(TpmError) as caught:
            tpm.nv_undefine(public, Auth(session, b"wrong"))
        assert caught.value.code == Rc.BAD_AUTH
        tpm.nv_undefine(public, Auth(session, password))
        tpm.hierarchy_change_auth(Hierarchy.LOCKOUT, password, hidden)
        tpm.clear(Hierarchy.LOCKOUT, Auth(session, password, new_value=b""))
    tpm.nv_define(public)


@swtpm
def test_wrong_lockout_password_locks(tpm: Tpm, srk: StorageKey) -> None:
    with tpm.session(SessionKind.HMAC, srk) as session:
        tpm.dictionary_attack_parameters(5, 100, 1000, Auth(session))
        tpm.dictionary_attack_lock_reset(Auth(session))
        tpm.hierarchy_change_auth(Hierarchy.LOCKOUT, b"right", Auth(session, decrypt=True))
        with pytest.raises(TpmError) as caught:
            tpm.clear(Hierarchy.LOCKOUT, Auth(session, b"wrong"))
        assert caught.value.code == Rc.AUTH_FAIL
        with pytest.raises(TpmError) as caught:
            tpm.clear(Hierarchy.LOCKOUT, Auth(session, b"right", new_value=b""))
        assert caught.value.code == Rc.LOCKOUT
    wanted = {Property.MAX_AUTH_FAIL: 5, Property.LOCKOUT_INTERVAL: 100}
    assert tpm.properties(Property.MAX_AUTH_FAIL, 2) == wanted


@swtpm
def test_sessions_leave_nothing_behind(tpm: Tpm, srk: StorageKey) -> None:
    for _ in range(8):  # more than the TPM has room for
        for kind in (SessionKind.HMAC, SessionKind.POLICY):
            with tpm.session(kind, srk):
                pass
        with tpm.session(SessionKind.TRIAL):
            pass
    assert tpm.handles(0x02000000) == tpm.handles(0x03000000) == ()


# -- an interposer -------------------------------------------------------------------------------


def _stored(tpm: Tpm) -> tuple[StorageKey, NvPublic]:
    srk = _keep(tpm)
    public = NvPublic(INDEX, OPEN, b"", 24)
    with tpm.session(SessionKind.HMAC, srk) as session:
        tpm.nv_define(public, Auth(session))
        tpm.nv_write(public, b"nobody may read this one", Auth(session, decrypt=True), by=OWNER)
    return srk, public.written()


def _flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@swtpm
def test_a_changed_bit_of_an_answer_is_noticed(chip: SoftwareTpm) -> None:
    chip.wipe()
    bits = iter(range(0, 8 * 109, 3))
    sizes = set()

    def spoil(command: bytes, answer: bytes) -> bytes:
        if code_of(command) != Command.NV_READ:
            return answer
        sizes.add(len(answer))
        return _flip(answer, next(bits))

    with chip.open(lambda wire: Editor(wire, answer=spoil)) as tpm:
        srk, public = _stored(tpm)
        for _ in range(8 * 109 // 3 + 1):
            with tpm.session(SessionKind.HMAC, srk) as session, pytest.raises(TpmError):
                tpm.nv_read(public, Auth(session, encrypt=True))
    assert sizes == {109}  # so every byte was tried
    assert next(bits, None) is None


@swtpm
def test_changed_commands_are_refused_by_the_tpm(chip: SoftwareTpm) -> None:
    chip.wipe()

    def spoil(command: bytes) -> bytes:
        if code_of(command) != Command.NV_READ:
            return command
        return _flip(command, len(command) * 8 - 8)  # the offset to read from

    with chip.open(lambda wire: Editor(wire, command=spoil)) as tpm:
        srk, public = _stored(tpm)
        with tpm.session(SessionKind.HMAC, srk) as session, pytest.raises(TpmError) as caught:
            tpm.nv_read(public, Auth(session, encrypt=True))
    assert caught.value.code in {Rc.AUTH_FAIL, Rc.BAD_AUTH}


@swtpm
def test_an_answer_replayed_is_noticed(chip: SoftwareTpm) -> None:
    chip.wipe()
    seen: list[bytes] = []

    def replay(command: bytes, answer: bytes) -> bytes:
        if code_of(command) != Command.NV_READ:
            return answer
        seen.append(answer)
        return seen[0]

    with chip.open(lambda wire: Editor(wire, answer=replay)) as tpm:
        srk, public = _stored(tpm)
        with tpm.session(SessionKind.HMAC, srk) as session:
            auth = Auth(session, encrypt=True)
            assert tpm.nv_read(public, auth) == b"nobody may read this one"
            with pytest.raises(TpmError, match="changed on its way"):
                tpm.nv_read(public, auth)


@swtpm
def test_who_has_not_the_private_half_answers_nothing(tpm: Tpm) -> None:
    """A session salted to another key than the TPM's: neither side accepts the other."""
    srk, public = _stored(tpm)
    other = tpm.create_primary(Hierarchy.NULL)
    tpm.flush(other.handle.value)
    foreign = StorageKey(srk.handle, other.x, other.y)
    with tpm.session(SessionKind.HMAC, foreign) as session, pytest.raises(TpmError) as caught:
        tpm.nv_read(public, Auth(session, encrypt=True))
    assert caught.value.code in {Rc.AUTH_FAIL, Rc.BAD_AUTH}


@swtpm
def test_nothing_in_clear_on_the_bus(chip: SoftwareTpm) -> None:
    chip.wipe()
    probes: list[Recorder] = []

    def probe(wire: Transport) -> Recorder:
        probes.append(Recorder(wire))
        return probes[0]

    with chip.open(probe) as tpm:
        srk, public = _stored(tpm)
        with tpm.session(SessionKind.HMAC, srk) as session:
            tpm.nv_read(public, Auth(session, encrypt=True))
            assert b"nobody may read" not in probes[0].everything
        tpm.nv_read(public)  # in clear, to show that the probe sees what there is to see
    assert b"nobody may read" in probes[0].everything


# -- a TPM that is busy, or hostile --------------------------------------------------------------


_SESSION = tpm_session.Session(0x02000000, SessionKind.HMAC, b"k", b"n" * 32)
_NV = NvPublic(INDEX, OPEN, b"", 8)
_CALLS: dict[str, tuple[bool, Callable[[Tpm], object]]] = {
    "get_random": (False, lambda tpm: tpm.get_random(8)),
    "property": (False, lambda tpm: tpm.property(Property.NV_BUFFER_MAX)),
    "handles": (False, lambda tpm: tpm.handles(0x01000000)),
    "pcr_banks": (False, lambda tpm: tpm.pcr_banks()),
    "pcr_read": (False, lambda tpm: tpm.pcr_read(7, 11)),
    "read_storage_key": (False, lambda tpm: tpm.read_storage_key(0x81000001)),
    "load_external": (False, lambda tpm: tpm.load_external(b"public")),
    "verify": (False, lambda tpm: tpm.verify_signature(OWNER, bytes(32), b"s")),
    "nv_read_public": (False, lambda tpm: tpm.nv_read_public(INDEX)),
    "get_digest": (False, lambda tpm: tpm.policy_get_digest(_SESSION)),
    "create_primary": (True, lambda tpm: tpm.create_primary(Hierarchy.OWNER)),
    "nv_read": (True, lambda tpm: tpm.nv_read(_NV, Auth(_SESSION, encrypt=True))),
    "pcr_extend": (True, lambda tpm: tpm.pcr_extend(7, bytes(32), Auth(_SESSION))),
}


@given(name=st.sampled_from(sorted(_CALLS)), body=st.binary(max_size=200), lie=st.booleans())
def test_whatever_a_hostile_tpm_answers_is_an_error_or_a_value(
    name: str, body: bytes, lie: bool
) -> None:
    with_sessions, call = _CALLS[name]
    given = answer(0, body, 0x8002 if with_sessions else 0x8001)
    tpm = tpm_of(Scripted(given + b"x" if lie else given))
    tpm.__dict__["nv_buffer"] = 1024  # what it was asked before
    try:
        result = call(tpm)
    except TpmError:
        return
    assert not lie
    # What passes is well formed and was not said to be authentic.
    assert isinstance(result, int | bytes | tuple | dict | Handle | Ticket | StorageKey | NvPublic)
    assert name not in {"nv_read", "pcr_extend"}


@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"\x80\x01",
        answer(0, b"\x00\x08" + b"r" * 7),
        answer(0, b"\x00\x08" + b"r" * 9),
        answer(0, b"\x00\x07" + b"r" * 7),
        answer(0, b"\x00\x08" + b"r" * 8, tag=0x8002),
        struct.pack(">HII", 0x8001, 9, 0),
        struct.pack(">HII", 0x8001, 1 << 31, 0),
        b"r" * 5000,
    ],
)
def test_malformed_answers(given: bytes) -> None:
    with tpm_of(Scripted(given)) as tpm, pytest.raises(TpmError):
        tpm.get_random(8)


def test_no_device_and_no_socket(tmp_path: Path) -> None:
    with pytest.raises(TpmError, match=r"no TPM: .*tpmrm0 does not exist"):
        DeviceTransport(tmp_path / "tpmrm0")
    with pytest.raises(TpmError, match="no TPM"):
        SocketTransport(tmp_path / "socket")
    with tpm_of(DeviceTransport("/dev/null")) as tpm, pytest.raises(TpmError):
        tpm.get_random(8)


@swtpm
def test_policy_nv_compares(tpm: Tpm, srk: StorageKey) -> None:
    public = NvPublic(INDEX, OPEN, b"", 4)
    tpm.nv_define(public)
    tpm.nv_write(public, b"0005", by=OWNER)
    for operand, holds in ((b"0004", False), (b"0005", True), (b"0010", True)):
        with tpm.session(SessionKind.POLICY, srk) as session:
            if holds:
                tpm.policy_nv(session, public.written(), operand, Operation.UNSIGNED_LE)
                continue
            with pytest.raises(TpmError) as caught:
                tpm.policy_nv(session, public.written(), operand, Operation.UNSIGNED_LE)
            assert caught.value.code == Rc.POLICY
