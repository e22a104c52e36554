"""Every command byte by byte, and every answer read to its end: a TPM that is scripted."""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from machineos.errors import TpmError
from machineos.host.tpm.code import Rc
from machineos.host.tpm.commands import Tpm
from machineos.host.tpm.session import Auth, Session
from machineos.host.tpm.wire import (
    STORAGE_TEMPLATE,
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
    object_name,
    sized,
    u32,
)
from unit.host.tpm.scripted import NONCE, Scripted, answer, tpm_of

SESSION = Session(0x03000000, SessionKind.POLICY, b"", b"n" * 32)
NV = NvPublic(0x1500020, NvAttribute.OWNERWRITE | NvAttribute.AUTHREAD, b"", 4)
KEY = StorageKey(Handle(0x80000000, b"name"), b"x" * 32, b"y" * 32)
TICKET = Ticket(0x8022, 0x40000001, b"digest")
# An answer's authorisation area, and a command's, for an empty password.
EMPTY = bytes.fromhex("0000 01 0000")
NO_PASSWORD = bytes.fromhex("00000009 40000009 0000 01 0000")
SRK = bytes.fromhex("0023 000b 00030472 0000 0006 0080 0043 0010 0003 0010")
PUBLIC = SRK + sized(b"x" * 32) + sized(b"y" * 32)


@dataclass(frozen=True)
class Row:
    """A call, what it sends after the header, what comes back, and what it returns."""

    call: Callable[[Tpm], object]
    code: int
    sent: bytes
    body: bytes = b""
    result: object = None
    authorised: bool = False
    handle: bytes = b""

    @property
    def answer(self) -> bytes:
        if not self.authorised:
            return answer(0, self.handle + self.body)
        return answer(0, self.handle + u32(len(self.body)) + self.body + EMPTY, 0x8002)

    @property
    def longer(self) -> bytes:
        """The same with one byte too many at its end."""
        if not self.authorised:
            return answer(0, self.handle + self.body + b"x")
        body = self.body + b"x"
        return answer(0, self.handle + u32(len(body)) + body + EMPTY, 0x8002)


def nv_define(tpm: Tpm) -> None:
    tpm.nv_define(NV)


ROWS = {
    "get_random": Row(
        lambda tpm: tpm.get_random(2), 0x17B, bytes.fromhex("0002"), sized(b"ab"), b"ab"
    ),
    "properties": Row(
        lambda tpm: tpm.properties(Property.MAX_AUTH_FAIL, 2),
        0x17A,
        bytes.fromhex("00000006 0000020f 00000002"),
        b"\1" + u32(6, 2, 0x20F, 5, 0x210, 7),
        {0x20F: 5, 0x210: 7},
    ),
    "property": Row(
        lambda tpm: tpm.property(Property.NV_INDEX_MAX),
        0x17A,
        bytes.fromhex("00000006 00000117 00000001"),
        b"\0" + u32(6, 1, 0x117, 2048),
        2048,
    ),
    "handles": Row(
        lambda tpm: tpm.handles(0x01000000),
        0x17A,
        bytes.fromhex("00000001 01000000 000000fe"),
        b"\0" + u32(1, 2, 0x1500001, 0x1500002),
        (0x1500001, 0x1500002),
    ),
    "pcr_banks": Row(
        lambda tpm: tpm.pcr_banks(),
        0x17A,
        bytes.fromhex("00000005 00000000 00000010"),
        b"\0" + u32(5, 1) + bytes.fromhex("000b 03 810000"),
        {0xB: frozenset({0, 7})},
    ),
    "pcr_read": Row(
        lambda tpm: tpm.pcr_read(11, 7),
        0x17E,
        bytes.fromhex("00000001 000b 03 800800"),
        u32(9, 1) + bytes.fromhex("000b 03 800800") + u32(2) + sized(b"7" * 32) + sized(b"b" * 32),
        {7: b"7" * 32, 11: b"b" * 32},
    ),
    "pcr_extend": Row(
        lambda tpm: tpm.pcr_extend(7, b"d" * 32),
        0x182,
        u32(7) + NO_PASSWORD + bytes.fromhex("00000001 000b") + b"d" * 32,
        authorised=True,
    ),
    "evict_control": Row(
        lambda tpm: tpm.evict_control(KEY, 0x81000001),
        0x120,
        u32(0x40000001, 0x80000000) + NO_PASSWORD + u32(0x81000001),
        authorised=True,
    ),
    "flush": Row(lambda tpm: tpm.flush(0x80000000), 0x165, u32(0x80000000)),
    "load_external": Row(
        lambda tpm: tpm.load_external(b"public"),
        0x167,
        sized(b"") + sized(b"public") + u32(0x40000001),
        sized(object_name(b"public")),
        Handle(0x80000001, object_name(b"public")),
        handle=u32(0x80000001),
    ),
    "verify_signature": Row(
        lambda tpm: tpm.verify_signature(Handle.of(0x80000001), b"d" * 32, b"sig"),
        0x177,
        u32(0x80000001) + sized(b"d" * 32) + bytes.fromhex("0014 000b") + sized(b"sig"),
        bytes.fromhex("8022 40000001") + sized(b"digest"),
        TICKET,
    ),
    "policy_nv": Row(
        lambda tpm: tpm.policy_nv(SESSION, NV, b"0001", Operation.UNSIGNED_LE),
        0x149,
        u32(0x1500020, 0x1500020, 0x03000000) + NO_PASSWORD + sized(b"0001") + b"\0\0\0\x09",
        authorised=True,
    ),
    "policy_get_digest": Row(
        lambda tpm: tpm.policy_get_digest(SESSION),
        0x189,
        u32(0x03000000),
        sized(b"d" * 32),
        b"d" * 32,
    ),
    "nv_define": Row(
        nv_define,
        0x12A,
        u32(0x40000001) + NO_PASSWORD + sized(b"") + sized(NV.marshal()),
        authorised=True,
    ),
    "nv_undefine": Row(
        lambda tpm: tpm.nv_undefine(NV),
        0x122,
        u32(0x40000001, 0x1500020) + NO_PASSWORD,
        authorised=True,
    ),
    "nv_read_public": Row(
        lambda tpm: tpm.nv_read_public(0x1500020),
        0x169,
        u32(0x1500020),
        sized(NV.marshal()) + sized(NV.name),
        NV,
    ),
    "clear": Row(
        lambda tpm: tpm.clear(Hierarchy.LOCKOUT),
        0x126,
        u32(0x4000000A) + NO_PASSWORD,
        authorised=True,
    ),
    "hierarchy_change_auth": Row(
        lambda tpm: tpm.hierarchy_change_auth(Hierarchy.OWNER, b"new", Auth()),
        0x129,
        u32(0x40000001) + NO_PASSWORD + sized(b"new"),
        authorised=True,
    ),
    "dictionary_attack_parameters": Row(
        lambda tpm: tpm.dictionary_attack_parameters(1, 2, 3),
        0x13A,
        u32(0x4000000A) + NO_PASSWORD + u32(1, 2, 3),
        authorised=True,
    ),
    "dictionary_attack_lock_reset": Row(
        lambda tpm: tpm.dictionary_attack_lock_reset(),
        0x139,
        u32(0x4000000A) + NO_PASSWORD,
        authorised=True,
    ),
}
# What follows in these answers is not looked at: nothing in it is used.
LOOSE = {
    "startup": Row(lambda tpm: tpm.startup(), 0x144, bytes.fromhex("0000")),
    "create_primary": Row(
        lambda tpm: tpm.create_primary(Hierarchy.NULL),
        0x131,
        u32(0x40000007)
        + NO_PASSWORD
        + bytes.fromhex("0004 0000 0000")
        + sized(STORAGE_TEMPLATE)
        + bytes.fromhex("0000 00000000"),
        sized(PUBLIC) + b"creation data and ticket",
        StorageKey(Handle(0x80000000, object_name(PUBLIC)), b"x" * 32, b"y" * 32),
        authorised=True,
        handle=u32(0x80000000),
    ),
    "read_storage_key": Row(
        lambda tpm: tpm.read_storage_key(0x81000001),
        0x173,
        u32(0x81000001),
        sized(PUBLIC) + sized(object_name(PUBLIC)) + sized(b"qualified name"),
        StorageKey(Handle(0x81000001, object_name(PUBLIC)), b"x" * 32, b"y" * 32),
    ),
    "policy_pcr": Row(
        lambda tpm: tpm.policy_pcr(SESSION, 7, 11),
        0x17F,
        u32(0x03000000) + sized(b"") + bytes.fromhex("00000001 000b 03 800800"),
    ),
    "policy_authorize": Row(
        lambda tpm: tpm.policy_authorize(SESSION, b"approved", b"key name", TICKET),
        0x16A,
        u32(0x03000000)
        + sized(b"approved")
        + sized(b"")
        + sized(b"key name")
        + bytes.fromhex("8022 40000001")
        + sized(b"digest"),
    ),
    "policy_command_code": Row(
        lambda tpm: tpm.policy_command_code(SESSION, Command.NV_WRITE),
        0x16C,
        u32(0x03000000, 0x137),
    ),
    "policy_nv_written": Row(
        lambda tpm: tpm.policy_nv_written(SESSION, written=False),
        0x18F,
        u32(0x03000000) + b"\0",
    ),
    "policy_nv_written yes": Row(
        lambda tpm: tpm.policy_nv_written(SESSION, written=True),
        0x18F,
        u32(0x03000000) + b"\1",
    ),
    "policy_or": Row(
        lambda tpm: tpm.policy_or(SESSION, (b"one", b"other")),
        0x171,
        u32(0x03000000) + u32(2) + sized(b"one") + sized(b"other"),
    ),
}


@pytest.mark.parametrize("name", [*ROWS, *LOOSE])
def test_a_command_and_its_answer(name: str) -> None:
    row = (ROWS | LOOSE)[name]
    wire = Scripted(row.answer)
    with tpm_of(wire) as tpm:
        assert row.call(tpm) == row.result
    tag = 0x8002 if NO_PASSWORD in row.sent else 0x8001
    assert wire.asked == [struct.pack(">HII", tag, 10 + len(row.sent), row.code) + row.sent]


@pytest.mark.parametrize("name", ROWS)
def test_an_answer_with_a_byte_too_many_is_refused(name: str) -> None:
    with tpm_of(Scripted(ROWS[name].longer)) as tpm:
        with pytest.raises(TpmError, match="has bytes too many"):
            ROWS[name].call(tpm)


@pytest.mark.parametrize("name", [name for name in [*ROWS, *LOOSE] if (ROWS | LOOSE)[name].body])
def test_an_answer_that_is_cut_is_refused(name: str) -> None:
    row = (ROWS | LOOSE)[name]
    if name in {"create_primary", "read_storage_key"}:
        return  # the end of these is not looked at
    body = row.handle + row.body[:-1]
    with tpm_of(Scripted(answer(0, body))) as tpm, pytest.raises(TpmError):
        row.call(tpm)


# -- the TPM itself ------------------------------------------------------------------------------


def test_a_tpm_that_was_started_already_is_started() -> None:
    with tpm_of(Scripted(answer(Rc.INITIALIZE))) as tpm:
        tpm.startup()
    with tpm_of(Scripted(answer(Rc.FAILURE))) as tpm, pytest.raises(TpmError) as caught:
        tpm.startup()
    assert caught.value.code == Rc.FAILURE


def test_a_property_is_asked_for_alone() -> None:
    wire = Scripted(answer(0, b"\0" + u32(6, 0)))
    with tpm_of(wire) as tpm:
        assert tpm.properties(Property.PERMANENT) == {}
        with pytest.raises(TpmError) as caught:
            tpm.property(Property.PERMANENT)
    assert caught.value.message == "the TPM does not know the property PERMANENT"
    assert {asked[-4:] for asked in wire.asked} == {u32(1)}


def test_a_list_is_asked_for_page_by_page() -> None:
    def page(first: int, count: int) -> bytes:
        return answer(0, b"\1" + u32(1, count, *range(first, first + count)))

    wire = Scripted(page(0x01000005, 254), page(0x01000200, 254), page(0x01000400, 253))
    with tpm_of(wire) as tpm:
        found = tpm.handles(0x01000000)
    wanted = [(0x01000005, 254), (0x01000200, 254), (0x01000400, 253)]
    assert found == tuple(n for first, count in wanted for n in range(first, first + count))
    assert [asked[14:] for asked in wire.asked] == [
        u32(0x01000000, 254), u32(0x01000103, 254), u32(0x010002FE, 254),
    ]  # fmt: skip


def test_a_list_of_one_page_ends_where_the_page_ends() -> None:
    one = answer(0, b"\1" + u32(1, 254, *([0x01000000] * 253), 0x01000005))
    wire = Scripted(one, answer(0, b"\0" + u32(1, 0)))
    with tpm_of(wire) as tpm:
        assert len(tpm.handles(0x01000005)) == 254


@pytest.mark.parametrize("last", [0x01000000, 0x01000004])
def test_a_list_in_no_order_ends(last: int) -> None:
    page = answer(0, b"\1" + u32(1, 254, *([0x01000009] * 253), last))
    with tpm_of(Scripted(page)) as tpm, pytest.raises(TpmError, match="handles in no order"):
        tpm.handles(0x01000005)


def test_a_list_is_no_longer_than_was_asked_for() -> None:
    handles = answer(0, b"\0" + u32(1, 255, *range(255)))
    with tpm_of(Scripted(handles)) as tpm, pytest.raises(TpmError, match="lists 255 things"):
        tpm.handles(0)
    two = answer(0, b"\0" + u32(6, 2, 0x200, 1, 0x201, 2))
    with tpm_of(Scripted(two)) as tpm:
        assert len(tpm.properties(Property.PERMANENT, 2)) == 2
        with pytest.raises(TpmError, match="lists 2 things"):
            tpm.properties(Property.PERMANENT)


def test_an_answer_to_another_capability_is_refused() -> None:
    with tpm_of(Scripted(answer(0, b"\0" + u32(5, 0)))) as tpm:
        with pytest.raises(TpmError) as caught:
            tpm.handles(1)
    assert caught.value.message == "the TPM answered to another GET_CAPABILITY"


def test_as_many_random_bytes_as_were_asked_for() -> None:
    for given in (b"a", b"abc"):
        with tpm_of(Scripted(answer(0, sized(given)))) as tpm, pytest.raises(TpmError) as caught:
            tpm.get_random(2)
        assert caught.value.message == f"the TPM returned {len(given)} random bytes, not 2"


# -- PCRs ----------------------------------------------------------------------------------------


def pcrs(selection: str, *values: bytes) -> bytes:
    listed = b"".join(map(sized, values))
    return answer(0, u32(1, 1) + bytes.fromhex(selection) + u32(len(values)) + listed)


def test_pcrs_that_do_not_exist_are_left_out() -> None:
    with tpm_of(Scripted(pcrs("000b 03 800000", b"7" * 32))) as tpm:
        assert tpm.pcr_read(7, 11) == {7: b"7" * 32}
    with tpm_of(Scripted(pcrs("0004 03 000000"))) as tpm:
        assert tpm.pcr_read(7, 11) == {}
    eight = pcrs("000b 03 ff0000", *[bytes([n]) * 32 for n in range(8)])
    with tpm_of(Scripted(eight)) as tpm:
        assert tpm.pcr_read(*range(8))[7] == b"\7" * 32
    nine = pcrs("000b 03 ff0100", *[bytes([n]) * 32 for n in range(9)])
    with tpm_of(Scripted(nine)) as tpm, pytest.raises(TpmError, match="lists 9 things"):
        tpm.pcr_read(*range(9))


@pytest.mark.parametrize(
    "given",
    [
        pcrs("000b 03 000001", b"7" * 32),  # PCR 16
        pcrs("000b 03 800000"),
        pcrs("000b 03 800000", b"7" * 32, b"b" * 32),
        pcrs("000b 03 800000", b"7" * 31),
        pcrs("000b 03 800800", b"7" * 32, b"b" * 33),
    ],
)
def test_pcrs_that_were_not_asked_for_are_refused(given: bytes) -> None:
    with tpm_of(Scripted(given)) as tpm, pytest.raises(TpmError) as caught:
        tpm.pcr_read(7, 11)
    assert caught.value.message == "the TPM answered with PCRs that it was not asked for"


# -- keys ----------------------------------------------------------------------------------------


def test_a_key_with_another_name_is_refused() -> None:
    shown = sized(PUBLIC) + sized(object_name(PUBLIC)[:-1] + b"x") + sized(b"")
    with tpm_of(Scripted(answer(0, shown))) as tpm, pytest.raises(TpmError) as caught:
        tpm.read_storage_key(0x81000001)
    assert caught.value.message == "the key 0x81000001 of the TPM has not the name it claims"


def test_another_key_than_was_loaded_is_refused() -> None:
    shown = u32(0x80000001) + sized(object_name(b"other"))
    with tpm_of(Scripted(answer(0, shown))) as tpm, pytest.raises(TpmError) as caught:
        tpm.load_external(b"public")
    assert caught.value.message == "the TPM loaded another key than it was given"


# -- passwords -----------------------------------------------------------------------------------


def test_a_new_password_is_what_the_answer_is_proved_by() -> None:
    session = Session(0x02000000, SessionKind.HMAC, b"key", b"t" * 32)
    parameters = b""
    response_hash = hashlib.sha256(u32(0, Command.HIERARCHY_CHANGE_AUTH) + parameters).digest()
    for password, noticed in ((b"new", False), (b"old", True)):
        proof = hmac.digest(b"key" + password, response_hash + b"T" * 32 + NONCE + b"\1", "sha256")
        area = sized(b"T" * 32) + b"\1" + sized(proof)
        wire = Scripted(answer(0, u32(0) + area, 0x8002))
        auth = Auth(session, b"old", decrypt=True, encrypt=True)
        with tpm_of(wire) as tpm:
            if noticed:
                with pytest.raises(TpmError, match="changed on its way"):
                    tpm.hierarchy_change_auth(Hierarchy.OWNER, b"new", auth)
            else:
                tpm.hierarchy_change_auth(Hierarchy.OWNER, b"new", auth)
        assert b"new" not in wire.asked[0]
        assert wire.asked[0][18 + 4 + 34] == 0x21  # hidden on the way there, nothing comes back
        session = Session(0x02000000, SessionKind.HMAC, b"key", b"t" * 32)
