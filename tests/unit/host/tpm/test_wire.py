"""What goes over the wire: the TCG's numbers, structures byte by byte, a strict reader."""

from __future__ import annotations

import hashlib
from enum import IntEnum, IntFlag

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from machineos.errors import TpmError
from machineos.host.tpm import wire
from machineos.host.tpm.wire import (
    Capability,
    Command,
    Handle,
    Hierarchy,
    NvAttribute,
    NvPublic,
    Operation,
    Permanent,
    Property,
    Reader,
    SessionKind,
    StorageKey,
    Ticket,
)

NUMBERS: list[tuple[type[IntEnum], dict[str, int]]] = [
    (
        Command,
        {
            "EVICT_CONTROL": 0x120, "NV_UNDEFINE_SPACE": 0x122, "CLEAR": 0x126,
            "HIERARCHY_CHANGE_AUTH": 0x129, "NV_DEFINE_SPACE": 0x12A, "CREATE_PRIMARY": 0x131,
            "NV_WRITE": 0x137, "DICTIONARY_ATTACK_LOCK_RESET": 0x139,
            "DICTIONARY_ATTACK_PARAMETERS": 0x13A, "STARTUP": 0x144, "POLICY_NV": 0x149,
            "NV_READ": 0x14E, "FLUSH_CONTEXT": 0x165, "LOAD_EXTERNAL": 0x167,
            "NV_READ_PUBLIC": 0x169, "POLICY_AUTHORIZE": 0x16A, "POLICY_COMMAND_CODE": 0x16C,
            "POLICY_OR": 0x171, "READ_PUBLIC": 0x173, "START_AUTH_SESSION": 0x176,
            "VERIFY_SIGNATURE": 0x177, "GET_CAPABILITY": 0x17A, "GET_RANDOM": 0x17B,
            "PCR_READ": 0x17E, "POLICY_PCR": 0x17F, "POLICY_RESTART": 0x180,
            "PCR_EXTEND": 0x182, "POLICY_GET_DIGEST": 0x189, "POLICY_NV_WRITTEN": 0x18F,
        },
    ),
    (
        Hierarchy,
        {
            "OWNER": 0x40000001, "NULL": 0x40000007, "LOCKOUT": 0x4000000A,
            "ENDORSEMENT": 0x4000000B, "PLATFORM": 0x4000000C,
        },
    ),
    (SessionKind, {"HMAC": 0, "POLICY": 1, "TRIAL": 3}),
    (
        Operation,
        {"EQ": 0, "UNSIGNED_GT": 3, "UNSIGNED_LT": 5, "UNSIGNED_GE": 7, "UNSIGNED_LE": 9},
    ),
    (Capability, {"HANDLES": 1, "PCRS": 5, "PROPERTIES": 6}),
    (
        Property,
        {
            "MANUFACTURER": 0x105, "VENDOR_STRING_1": 0x106,
            "NV_INDEX_MAX": 0x117, "NV_BUFFER_MAX": 0x12C, "PERMANENT": 0x200,
            "LOCKOUT_COUNTER": 0x20E, "MAX_AUTH_FAIL": 0x20F, "LOCKOUT_INTERVAL": 0x210,
            "LOCKOUT_RECOVERY": 0x211,
        },
    ),
]  # fmt: skip
BITS: list[tuple[type[IntFlag], dict[str, int]]] = [
    (
        Permanent,
        {
            "OWNER_AUTH_SET": 0, "ENDORSEMENT_AUTH_SET": 1, "LOCKOUT_AUTH_SET": 2,
            "DISABLE_CLEAR": 8, "IN_LOCKOUT": 9,
        },
    ),
    (
        NvAttribute,
        {
            "PPWRITE": 0, "OWNERWRITE": 1, "AUTHWRITE": 2, "POLICYWRITE": 3, "PPREAD": 16,
            "OWNERREAD": 17, "AUTHREAD": 18, "POLICYREAD": 19, "NO_DA": 25, "WRITTEN": 29,
            "PLATFORMCREATE": 30,
        },
    ),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "numbers"), NUMBERS, ids=lambda it: getattr(it, "__name__", ""))
def test_the_numbers_are_those_of_the_tables(kind: type[IntEnum], numbers: dict[str, int]) -> None:
    assert {one.name: one.value for one in kind} == numbers


@pytest.mark.parametrize(("kind", "bits"), BITS, ids=lambda it: getattr(it, "__name__", ""))
def test_the_bits_are_those_of_the_tables(kind: type[IntFlag], bits: dict[str, int]) -> None:
    assert {one.name: one.value.bit_length() - 1 for one in kind} == bits
    assert all(one.value.bit_count() == 1 for one in kind)


def test_the_other_numbers() -> None:
    assert (wire.ST_NO_SESSIONS, wire.ST_SESSIONS) == (0x8001, 0x8002)
    assert (wire.ALG_RSA, wire.ALG_AES, wire.ALG_SHA256, wire.ALG_NULL) == (1, 6, 0xB, 0x10)
    assert (wire.ALG_RSASSA, wire.ALG_ECC, wire.ALG_CFB) == (0x14, 0x23, 0x43)
    assert (wire.CURVE_P256, wire.RS_PW) == (3, 0x40000009)
    assert (wire.DIGEST_SIZE, wire.MAX_MESSAGE, wire.PCR_COUNT) == (32, 4096, 24)


# -- reading -------------------------------------------------------------------------------------


def test_a_reader_takes_one_after_the_other() -> None:
    reader = Reader(bytes.fromhex("01 0203 04050607 0002 6162 00000003 7a7a"), "X")
    assert (reader.u8(), reader.u16(), reader.u32()) == (0x01, 0x0203, 0x04050607)
    assert (reader.sized(), reader.count(3), reader.rest()) == (b"ab", 3, b"zz")
    assert reader.rest() == b""
    reader.end()


@pytest.mark.parametrize("missing", [1, 2, 4])
def test_a_reader_never_reads_past_the_end(missing: int) -> None:
    reader = Reader(bytes(missing - 1), "X")
    read = {1: reader.u8, 2: reader.u16, 4: reader.u32}[missing]
    with pytest.raises(TpmError) as caught:
        read()
    assert caught.value.message == "the TPM's answer to X is too short"
    with pytest.raises(TpmError, match="too short"):
        Reader(b"\x00\x05abcd", "X").sized()
    assert Reader(b"\x00\x05abcde", "X").sized() == b"abcde"


def test_a_reader_says_what_is_left() -> None:
    reader = Reader(b"ab", "X")
    reader.take(1)
    with pytest.raises(TpmError) as caught:
        reader.end()
    assert caught.value.message == "the TPM's answer to X has bytes too many"
    reader.take(1)
    reader.end()


def test_a_list_has_a_longest() -> None:
    assert Reader(bytes([0, 0, 0, 7]), "X").count(7) == 7
    with pytest.raises(TpmError) as caught:
        Reader(bytes([0, 0, 0, 8]), "X").count(7)
    assert caught.value.message == "the TPM's answer to X lists 8 things"


@pytest.mark.parametrize("size", [10, 4096])
def test_a_header_has_tag_size_and_code(size: int) -> None:
    data = bytes.fromhex("8001") + size.to_bytes(4, "big") + bytes.fromhex("00000922")
    assert wire.parse_header(data + b"more") == (0x8001, size, 0x922)


@pytest.mark.parametrize("size", [0, 9, 4097, 1 << 31])
def test_a_header_with_an_impossible_size(size: int) -> None:
    with pytest.raises(TpmError) as caught:
        wire.parse_header(bytes(2) + size.to_bytes(4, "big") + bytes(4))
    assert caught.value.message == f"the TPM's answer claims {size} bytes"


def test_less_than_a_header() -> None:
    with pytest.raises(TpmError) as caught:
        wire.parse_header(bytes(9))
    assert caught.value.message == "the TPM's answer is shorter than a header"
    assert wire.header(0x8002, 12, 0x17B) == bytes.fromhex("8002 0000000c 0000017b")


# -- structures ----------------------------------------------------------------------------------


def test_numbers_are_big_endian() -> None:
    assert wire.u16(1, 0x0203) == bytes([0, 1, 2, 3])
    assert wire.u32(1, 0x02030405) == bytes([0, 0, 0, 1, 2, 3, 4, 5])
    assert wire.u16() == wire.u32() == b""
    assert wire.sized(b"abc") == b"\0\3abc"
    assert wire.sha256(b"a", b"bc") == hashlib.sha256(b"abc").digest()


def test_pcrs_are_selected_by_bit() -> None:
    assert wire.pcr_selection((7, 11)) == bytes.fromhex("00000001 000b 03 800800")
    assert wire.pcr_selection((0, 23, 0)) == bytes.fromhex("00000001 000b 03 010080")


def test_pcrs_are_read_by_bank() -> None:
    data = bytes.fromhex("00000002 0004 03 ffffff 000b 03 010080")
    assert wire.read_pcr_selections(Reader(data, "X")) == {
        4: frozenset(range(24)),
        0xB: frozenset({0, 23}),
    }
    many = (16).to_bytes(4, "big") + bytes.fromhex("000b 00") * 16
    assert wire.read_pcr_selections(Reader(many, "X")) == {0xB: frozenset()}
    with pytest.raises(TpmError, match="lists 17 things"):
        wire.read_pcr_selections(Reader((17).to_bytes(4, "big"), "X"))


def test_a_handle_that_is_its_own_name() -> None:
    assert Handle.of(0x40000001) == Handle(0x40000001, bytes.fromhex("40000001"))


PUBLIC = NvPublic(0x1500020, NvAttribute.OWNERWRITE | NvAttribute.AUTHREAD, b"p" * 32, 4)
AREA = bytes.fromhex("01500020 000b 00040002 0020") + b"p" * 32 + bytes.fromhex("0004")


def test_an_nv_index_has_the_name_that_the_tpm_gives_it() -> None:
    assert PUBLIC.marshal() == AREA
    assert PUBLIC.name == bytes.fromhex("000b") + hashlib.sha256(AREA).digest()
    assert PUBLIC.handle == Handle(0x1500020, PUBLIC.name)
    written = AREA[:6] + bytes.fromhex("20040002") + AREA[10:]
    assert PUBLIC.written().marshal() == written
    assert PUBLIC.written().written() == PUBLIC.written()


def test_an_nv_index_is_read() -> None:
    assert wire.read_nv_public(AREA) == PUBLIC
    for data, message in (
        (AREA[:5] + b"\x0c" + AREA[6:], "^NV index 0x1500020 is not named by SHA-256$"),
        (AREA[:-1], "NV_READ_PUBLIC is too short"),
        (AREA + b"x", "NV_READ_PUBLIC has bytes too many"),
    ):
        with pytest.raises(TpmError, match=message):
            wire.read_nv_public(data)


# TCG TPM v2.0 Provisioning Guidance, template H-2 (SRK, ECC P-256), as a TPMT_PUBLIC.
SRK = bytes.fromhex("0023 000b 00030472 0000 0006 0080 0043 0010 0003 0010")


def test_the_storage_template_is_the_provisioning_guidances() -> None:
    assert SRK + b"\0\x20" + bytes(32) + b"\0\x20" + bytes(32) == wire.STORAGE_TEMPLATE


def point(x: bytes, y: bytes) -> bytes:
    return SRK + wire.sized(x) + wire.sized(y)


def test_a_storage_key_is_read_with_its_name() -> None:
    x, y = b"x" * 32, b"y" * 32
    key = wire.read_storage_key(0x81000001, point(x, y))
    name = b"\0\x0b" + hashlib.sha256(point(x, y)).digest()
    assert key == StorageKey(Handle(0x81000001, name), x, y)
    assert key.name == name


def test_a_short_coordinate_is_filled_up_in_front() -> None:
    key = wire.read_storage_key(1, point(b"x", b"yy"))
    assert (key.x, key.y) == (bytes(31) + b"x", bytes(30) + b"yy")
    assert wire.read_storage_key(1, point(b"xx", b"y")).y == bytes(31) + b"y"


@pytest.mark.parametrize(
    ("public", "message"),
    [
        (point(b"", b"y"), "is not a point of P-256"),
        (point(b"x", b""), "is not a point of P-256"),
        (point(b"x" * 33, b"y"), "is not a point of P-256"),
        (point(b"x", b"y" * 33), "is not a point of P-256"),
        (point(b"x", b"y") + b"z", "READ_PUBLIC has bytes too many"),
        (SRK[:-1], "READ_PUBLIC is too short"),
        *((SRK[:at] + bytes([SRK[at] ^ 1]) + SRK[at + 1 :], "") for at in range(len(SRK))),
    ],
)
def test_any_other_key_is_none(public: bytes, message: str) -> None:
    wanted = message or "^the key 0x81000001 of the TPM is not a P-256 storage root key$"
    with pytest.raises(TpmError, match=wanted):
        wire.read_storage_key(0x81000001, public + (b"" if message else bytes(4)))


def test_the_storage_key_of_another_implementation_is_one() -> None:
    numbers = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()
    x, y = numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big")
    assert wire.read_storage_key(1, point(x, y)).x == x


def test_a_policy_key_is_what_the_predecessors_tools_make_of_it() -> None:
    public = wire.rsa_public(0xABCD, 2048)
    head = bytes.fromhex("0001 000b 00060040 0000 0010 0010 0800 00010001 0100")
    assert public == head + bytes(254) + b"\xab\xcd"
    assert wire.object_name(public) == b"\0\x0b" + hashlib.sha256(public).digest()


def test_a_ticket_is_passed_on_as_it_came() -> None:
    ticket = Ticket(0x8022, 0x40000001, b"digest")
    assert ticket.marshal() == bytes.fromhex("8022 40000001 0006") + b"digest"
