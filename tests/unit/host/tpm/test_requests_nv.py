"""NV storage on a scripted TPM: pieces, names, who reads and writes."""

from __future__ import annotations

import hashlib

import pytest

from machineos.errors import TpmError
from machineos.host.tpm.session import Auth, Session
from machineos.host.tpm.wire import (
    Handle,
    Hierarchy,
    NvAttribute,
    NvPublic,
    Reader,
    SessionKind,
    sized,
    u32,
)
from unit.host.tpm.scripted import Scripted, answer, tpm_of

NV = NvPublic(0x1500020, NvAttribute.OWNERWRITE | NvAttribute.AUTHREAD, b"", 4)
# An answer's authorisation area, and a command's, for an empty password.
EMPTY = bytes.fromhex("0000 01 0000")
NO_PASSWORD = bytes.fromhex("00000009 40000009 0000 01 0000")


@pytest.mark.parametrize(
    ("area", "name"),
    [
        (NV.marshal(), NV.written().name),
        (
            NvPublic(0x1500021, NV.attributes, b"", 4).marshal(),
            NvPublic(0x1500021, NV.attributes, b"", 4).name,
        ),
    ],
)
def test_an_index_with_another_name_or_number_is_refused(area: bytes, name: bytes) -> None:
    with tpm_of(Scripted(answer(0, sized(area) + sized(name)))) as tpm:
        with pytest.raises(TpmError) as caught:
            tpm.nv_read_public(0x1500020)
    assert caught.value.message == "NV index 0x1500020 of the TPM has not the name it claims"


@pytest.mark.parametrize(
    ("told", "used"), [(0, 64), (64, 64), (65, 65), (1024, 1024), (2048, 2048), (2049, 2048)]
)
def test_pieces_are_as_large_as_the_tpm_says_within_reason(told: int, used: int) -> None:
    wire = Scripted(answer(0, b"\0" + u32(6, 1, 0x12C, told)))
    with tpm_of(wire) as tpm:
        assert tpm.nv_buffer == tpm.nv_buffer == used
    assert [asked[10:] for asked in wire.asked] == [u32(6, 0x12C, 1)]


BUFFER = answer(0, b"\0" + u32(6, 1, 0x12C, 64))


def read_answer(piece: bytes) -> bytes:
    return answer(0, u32(2 + len(piece)) + sized(piece) + EMPTY, 0x8002)


def test_an_index_is_read_piece_by_piece() -> None:
    data = hashlib.shake_128(b"nv").digest(130)
    public = NvPublic(0x1500030, NV.attributes, b"", 130)
    wire = Scripted(BUFFER, *(read_answer(data[at : at + 64]) for at in (0, 64, 128)))
    prepared: list[int] = []
    with tpm_of(wire) as tpm:
        found = tpm.nv_read(public, prepare=lambda: prepared.append(len(wire.asked)))
    assert found == data
    assert len(prepared) == 3
    own = u32(0x1500030, 0x1500030) + NO_PASSWORD
    assert [asked[10:] for asked in wire.asked[1:]] == [
        own + bytes.fromhex("0040 0000"), own + bytes.fromhex("0040 0040"),
        own + bytes.fromhex("0002 0080"),
    ]  # fmt: skip
    assert {asked[6:10] for asked in wire.asked[1:]} == {u32(0x14E)}


def test_whoever_reads_is_named_first() -> None:
    wire = Scripted(BUFFER, read_answer(b"abcd"))
    with tpm_of(wire) as tpm:
        assert tpm.nv_read(NV, by=Handle.of(Hierarchy.OWNER)) == b"abcd"
    assert wire.asked[1][10:18] == u32(0x40000001, 0x1500020)


@pytest.mark.parametrize("given", [b"abc", b"abcde", b""])
def test_a_piece_of_another_size_is_refused(given: bytes) -> None:
    with tpm_of(Scripted(BUFFER, read_answer(given))) as tpm:
        with pytest.raises(TpmError) as caught:
            tpm.nv_read(NV)
    assert caught.value.message == f"the TPM returned {len(given)} bytes of NV, not 4"


def test_a_piece_with_a_tail_is_refused() -> None:
    tail = answer(0, u32(7) + sized(b"abcd") + b"x" + EMPTY, 0x8002)
    with tpm_of(Scripted(BUFFER, tail)) as tpm:
        with pytest.raises(TpmError, match="NV_READ has bytes too many"):
            tpm.nv_read(NV)


def test_an_index_is_written_piece_by_piece() -> None:
    data = hashlib.shake_128(b"nv").digest(130)
    done = answer(0, u32(0) + EMPTY, 0x8002)
    wire = Scripted(BUFFER, done)
    prepared: list[int] = []
    with tpm_of(wire) as tpm:
        tpm.nv_write(NV, data, prepare=lambda: prepared.append(1))
    assert len(prepared) == 3
    own = u32(0x1500020, 0x1500020) + NO_PASSWORD
    assert [asked[10:] for asked in wire.asked[1:]] == [
        own + sized(data[:64]) + bytes.fromhex("0000"),
        own + sized(data[64:128]) + bytes.fromhex("0040"),
        own + sized(data[128:]) + bytes.fromhex("0080"),
    ]
    assert {asked[6:10] for asked in wire.asked[1:]} == {u32(0x137)}
    wire = Scripted(BUFFER, done)
    with tpm_of(wire) as tpm:
        tpm.nv_write(NV, b"abcd", by=Handle.of(Hierarchy.OWNER))
    assert wire.asked[1][10:18] == u32(0x40000001, 0x1500020)


def test_a_write_with_a_tail_is_refused() -> None:
    tail = answer(0, u32(1) + b"x" + EMPTY, 0x8002)
    with tpm_of(Scripted(BUFFER, tail)) as tpm:
        with pytest.raises(TpmError, match="NV_WRITE has bytes too many"):
            tpm.nv_write(NV, b"abcd")


def test_an_index_has_another_name_after_its_first_piece() -> None:
    """The second piece is authorised for the name of an index that has been written."""
    session = Session(0x02000000, SessionKind.HMAC, b"", b"n" * 32)
    seen: list[bytes] = []

    class Watched(Auth):
        def entry(self, command_hash: bytes) -> bytes:
            seen.append(command_hash)
            return Auth().entry(command_hash)

        def check(self, response_hash: bytes, reader: Reader) -> bool:
            return Auth().check(response_hash, reader)

    with tpm_of(Scripted(BUFFER, answer(0, u32(0) + EMPTY, 0x8002))) as tpm:
        tpm.nv_write(NV, bytes(65), Watched(session))
    wanted = [
        hashlib.sha256(u32(0x137) + public.name * 2 + parameters).digest()
        for public, parameters in (
            (NV, sized(bytes(64)) + bytes.fromhex("0000")),
            (NV.written(), sized(bytes(1)) + bytes.fromhex("0040")),
        )
    ]
    assert seen == wanted
