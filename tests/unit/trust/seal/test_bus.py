"""An interposer between machine and TPM: it reads nothing in clear, and its changes are noticed."""

from __future__ import annotations

import os

import pytest

from fakes.swtpm import Editor, Recorder, SoftwareTpm, code_of
from machineos.core.clock import SystemClock
from machineos.core.secret import Secret
from machineos.errors import (
    BootError,
)
from machineos.host.tpm.commands import Tpm
from machineos.host.tpm.session import Auth
from machineos.host.tpm.transport import SocketTransport, Transport
from machineos.host.tpm.wire import Command, sha256
from machineos.trust.measure.tpm_policy import PHASES
from machineos.trust.seal.choice import DOOR
from machineos.trust.seal.unseal import Index, close_door, opened, read_floor
from unit.trust.sealing import (
    ADMIN,
    FIRST_SECRETS,
    LUKS,
    SECURE_BOOT,
    UKI,
    Machine,
    both,
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
    secrets = {index: machine.unseal(index, between=probe) for index in FIRST_SECRETS}
    secrets[Index.ADMIN_PASSWORD] = machine.unseal(
        Index.ADMIN_PASSWORD, [signed(by="tpmpol-admin")], ADMIN, probe
    )
    machine.close()
    secrets[Index.SUDI_KEY] = machine.unseal(Index.SUDI_KEY, between=probe)
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
        with opened(tpm, policies=both(version="0002"), policy_key_pem=LUKS) as sealed:
            sealed.read(Index.STORAGE_KEY)
            before = len(probes[0].commands)
            sealed.write(Index.CONFIGURATION_KEY, Secret(bytes(32)))
            sealed.close_door("first")
            # The floor, which is no secret, is asked for in between to choose the policy.
            middle = len(probes[0].commands)
            sealed.write_version("0002")
            after = len(probes[0].commands)
            sealed.read(Index.SUDI_KEY)
    commands = probes[0].commands[before:middle] + probes[0].commands[after:]
    assert attributes(probes[0].commands[middle:after], Command.NV_WRITE) == {0x21}
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
            close_door(tpm, "second", srk_name=machine.report.srk_name)


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
            close_door(tpm, "second", srk_name=machine.report.srk_name if pinned else None)


def test_a_door_is_closed_in_a_session_and_looked_at_twice(machine: Machine) -> None:
    probes: list[Recorder] = []

    def probe(wire: Transport) -> Recorder:
        probes.append(Recorder(wire))
        return probes[0]

    with machine.chip.open(probe) as tpm:
        close_door(tpm, "second", srk_name=machine.report.srk_name)
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


class Forgetful(Tpm):
    """A TPM that says that it extended a PCR."""

    def pcr_extend(self, pcr: int, digest: bytes, auth: Auth = Auth()) -> None:  # noqa: B008
        pass


def test_a_door_that_stays_open_is_noticed(machine: Machine) -> None:
    """Whatever the TPM said: the PCRs are looked at."""
    wire = SocketTransport(machine.chip.data)
    with Forgetful(wire, clock=SystemClock(), random=os.urandom) as tpm:
        with pytest.raises(BootError, match="PCR 7 did not change"):
            close_door(tpm, "second")
        with pytest.raises(BootError, match="PCR 11 did not change"):
            close_door(tpm, "first")


def test_extends_that_go_elsewhere_are_refused(machine: Machine) -> None:
    """By the TPM: the session's HMAC is over the PCR too."""

    def elsewhere(command: bytes) -> bytes:
        other = command[:10] + (16).to_bytes(4, "big") + command[14:]
        return other if code_of(command) == Command.PCR_EXTEND else command

    with machine.chip.open(lambda wire: Editor(wire, command=elsewhere)) as tpm:
        with pytest.raises(BootError, match="the TPM refused PCR_EXTEND"):
            close_door(tpm, "second")


def test_a_tpm_that_denies_its_storage_key_has_no_door_to_close(machine: Machine) -> None:
    """ReadPublic answered HANDLE: in a forged answer that would have made the extends plain ones,
    which an interposer may drop. There is no such fallback."""
    refusal = bytes.fromhex("80010000000a") + (0x18B).to_bytes(4, "big")
    probes: list[Editor] = []

    def deny(command: bytes, answer: bytes) -> bytes:
        return refusal if code_of(command) == Command.READ_PUBLIC else answer

    def between(wire: Transport) -> Editor:
        probes.append(Editor(wire, answer=deny))
        return probes[-1]

    for phase in PHASES:
        for name in (None, machine.report.srk_name):
            with machine.chip.open(between) as tpm:
                with pytest.raises(BootError, match="not provisioned, or was cleared"):
                    close_door(tpm, phase, srk_name=name)
    sent = [code_of(one) for probe in probes for one in probe.commands]
    assert Command.PCR_EXTEND not in sent


def test_who_gave_the_secrets_closes_the_door(machine: Machine) -> None:
    """The session of the door is salted to the key that the secrets came by; a TPM that somebody
    puts there in between has another one, and its answers are no answers."""
    probes: list[Recorder] = []

    def probe(wire: Transport) -> Recorder:
        probes.append(Recorder(wire))
        return probes[-1]

    with machine.chip.open(probe) as tpm:
        with opened(tpm, policies=both(), policy_key_pem=LUKS) as sealed:
            assert sealed.srk_name == machine.report.srk_name
            before = len(probes[0].commands)
            sealed.close_door("first")
    asked = [code_of(one) for one in probes[0].commands[before:-1]]
    assert asked == [
        Command.START_AUTH_SESSION, Command.PCR_READ, Command.PCR_EXTEND, Command.PCR_READ,
        Command.FLUSH_CONTEXT,
    ]  # fmt: skip
