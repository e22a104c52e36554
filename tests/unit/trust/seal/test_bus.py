"""An interposer between machine and TPM: it reads nothing in clear, and its changes are noticed."""

from __future__ import annotations

import pytest

from fakes.swtpm import Editor, Recorder, SoftwareTpm, code_of
from machineos.core.secret import Secret
from machineos.errors import (
    BootError,
)
from machineos.host.tpm.transport import Transport
from machineos.host.tpm.wire import Command, sha256
from machineos.trust.seal.choice import DOOR
from machineos.trust.seal.unseal import Index, close_door, opened, read_floor
from unit.trust.sealing import (
    ADMIN,
    LUKS,
    SECRETS,
    SECURE_BOOT,
    UKI,
    Machine,
    give,
    measured,
    signed,
)

pytestmark = pytest.mark.tool("swtpm")


def test_no_secret_is_ever_in_clear_on_the_bus(chip: SoftwareTpm) -> None:
    chip.wipe()
    probes: list[Recorder] = []

    def probe(wire: Transport) -> Recorder:
        probes.append(Recorder(wire))
        return probes[-1]

    with chip.open(probe) as tpm:
        machine = Machine(chip, give(tpm))
    machine.boot()
    secrets = {index: machine.unseal(index, between=probe) for index in SECRETS[1:]}
    secrets[Index.ADMIN_PASSWORD] = machine.unseal(
        Index.ADMIN_PASSWORD, [signed(by="tpmpol-admin")], ADMIN, probe
    )
    with chip.open(probe) as tpm:
        give(tpm, again=True, lockout_auth=secrets[Index.ADMIN_PASSWORD])
    bus = b"|".join(seen.everything for seen in probes)
    assert len(bus) > 10000
    for index, secret in secrets.items():
        for start in range(0, len(secret) - 8, 8):
            assert secret[start : start + 8] not in bus, index


def attributes(commands: list[bytes], command: Command) -> set[int]:
    """Return what the session does for an NV command: 0x20 hides its way there, 0x40 back."""
    return {one[10 + 8 + 4 + 4 + 2 + 32] for one in commands if code_of(one) == command}


def test_what_goes_to_and_fro_is_hidden(machine: Machine) -> None:
    probes: list[Recorder] = []

    def probe(wire: Transport) -> Recorder:
        probes.append(Recorder(wire))
        return probes[-1]

    with machine.chip.open(probe) as tpm:
        with opened(tpm, policies=[signed(version="0002")], policy_key_pem=LUKS) as sealed:
            before = len(probes[0].commands)
            sealed.read(Index.SUDI_KEY)
            sealed.write(Index.CONFIGURATION_KEY, Secret(bytes(32)))
            sealed.write_version("0002")
    commands = probes[0].commands[before:]
    assert attributes(commands, Command.NV_READ) == {0x41}
    assert attributes(commands, Command.NV_WRITE) == {0x21}
    with machine.chip.open(probe) as tpm:
        assert read_floor(tpm) == "0002"
    assert attributes(probes[1].commands, Command.NV_READ) == {0x41}


@pytest.mark.parametrize("pinned", [True, False])
def test_an_interposer_that_changes_a_secret_is_noticed(machine: Machine, pinned: bool) -> None:
    def spoil(command: bytes, answer: bytes) -> bytes:
        if code_of(command) != Command.NV_READ or len(answer) < 100:
            return answer
        return answer[:20] + bytes([answer[20] ^ 1]) + answer[21:]

    machine.pinned = pinned
    with pytest.raises(BootError, match="was changed on its way"):
        machine.unseal(between=lambda wire: Editor(wire, answer=spoil))


def test_an_interposer_that_keeps_the_door_open_is_noticed(machine: Machine) -> None:
    """It drops PCR_Extend and answers in the TPM's place."""
    good = bytes.fromhex("80020000001300000000000000000000010000")

    def drop(command: bytes, answer: bytes) -> bytes:
        return good if code_of(command) == Command.PCR_EXTEND else answer

    with machine.chip.open(lambda wire: Editor(wire, answer=drop)) as tpm:
        with pytest.raises(BootError, match="was changed on its way"):
            close_door(tpm, srk_name=machine.report.srk_name)


@pytest.mark.parametrize("pinned", [True, False])
def test_an_interposer_that_lies_about_the_pcrs_is_noticed(machine: Machine, pinned: bool) -> None:
    """It shows other PCRs, changed as they should be; only the session's HMAC tells."""
    machine.boot()
    real = {7: measured(SECURE_BOOT), 11: measured(UKI)}
    shown = {7: b"7" * 32, 11: b"b" * 32}

    def lie(command: bytes, answer: bytes) -> bytes:
        if code_of(command) == Command.PCR_READ:
            for pcr, constant in DOOR.items():
                answer = answer.replace(real[pcr], shown[pcr])
                answer = answer.replace(sha256(real[pcr], constant), sha256(shown[pcr], constant))
        return answer

    with machine.chip.open(lambda wire: Editor(wire, answer=lie)) as tpm:
        with pytest.raises(BootError, match="PCR_READ was changed on its way"):
            close_door(tpm, srk_name=machine.report.srk_name if pinned else None)


def test_a_door_is_closed_in_a_session_and_looked_at_twice(machine: Machine) -> None:
    probes: list[Recorder] = []

    def probe(wire: Transport) -> Recorder:
        probes.append(Recorder(wire))
        return probes[0]

    with machine.chip.open(probe) as tpm:
        close_door(tpm, srk_name=machine.report.srk_name)
    done = [(Command(code_of(one)), one[:2].hex(), one[10:14].hex()) for one in probes[0].commands]
    with_session, pcr_7, pcr_11 = "8002", "00000007", "0000000b"
    assert done[2:6] == [
        (Command.PCR_READ, with_session, done[2][2]),
        (Command.PCR_EXTEND, with_session, pcr_7),
        (Command.PCR_EXTEND, with_session, pcr_11),
        (Command.PCR_READ, with_session, done[2][2]),
    ]
    assert [done[0][0], done[1][0]] == [Command.READ_PUBLIC, Command.START_AUTH_SESSION]
    assert [done[6][0], len(done)] == [Command.FLUSH_CONTEXT, 7]


def test_a_door_that_stays_open_is_noticed(chip: SoftwareTpm) -> None:
    """Without a storage key there is no HMAC, but the PCRs are looked at."""

    def elsewhere(command: bytes) -> bytes:
        other = command[:10] + (16).to_bytes(4, "big") + command[14:]
        return other if code_of(command) == Command.PCR_EXTEND else command

    chip.wipe()
    with chip.open(lambda wire: Editor(wire, command=elsewhere)) as tpm:
        with pytest.raises(BootError, match="PCR 7 did not change"):
            close_door(tpm)
