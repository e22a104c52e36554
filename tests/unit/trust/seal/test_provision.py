"""Provisioning a real software TPM: what is left alone, what is refused, what it leaves."""

from __future__ import annotations

import pytest

from fakes.swtpm import Editor, Recorder, SoftwareTpm, code_of
from machineos.errors import (
    ConflictError,
    MachineError,
    TpmError,
    UsageError,
)
from machineos.host.tpm.code import Rc
from machineos.host.tpm.commands import Tpm
from machineos.host.tpm.session import Auth
from machineos.host.tpm.transport import Transport
from machineos.host.tpm.wire import Command, Handle, Hierarchy, NvAttribute, NvPublic, sized
from machineos.trust.seal.unseal import Index, State, read_floor, state
from unit.trust.sealing import (
    Machine,
    give,
    signed,
)

pytestmark = pytest.mark.tool("swtpm")


def test_a_provisioned_tpm_is_left_alone(machine: Machine) -> None:
    secret = machine.unseal()
    with machine.chip.open() as tpm:
        assert state(tpm) is State.PROVISIONED
        for more in ({}, {"again": True}, {"again": True, "lockout_auth": b"wrong"}):
            with pytest.raises(ConflictError):
                give(tpm, **more)
    assert machine.unseal() == secret


def test_again_with_the_admin_password(machine: Machine) -> None:
    secret, password = machine.unseal(), machine.admin_password()
    with machine.chip.open() as tpm:
        machine.report = give(tpm, again=True, lockout_auth=password, policy_version="0004")
    machine.boot()
    policies = [signed(version="0004")]
    assert machine.unseal(policies=policies) not in {secret, bytes(32)}
    with machine.chip.open() as tpm:
        assert read_floor(tpm) == "0004"


def test_a_tpm_of_the_predecessor_is_left_alone(chip: SoftwareTpm) -> None:
    chip.wipe()
    layout = NvPublic(Index.LAYOUT, NvAttribute(0x00060002), b"", 8)
    with chip.open() as tpm:
        tpm.nv_define(layout)
        assert state(tpm) is State.PARTIAL
        tpm.nv_write(layout, b"00000003", by=Handle.of(Hierarchy.OWNER))
        assert state(tpm) is State.FOREIGN
        with pytest.raises(ConflictError, match="provisioned by another version already"):
            give(tpm)
        assert give(tpm, again=True).layout_version == "00000004"


@pytest.mark.tool("tpm2")
def test_a_tpm_that_cannot_be_cleared(chip: SoftwareTpm) -> None:
    chip.wipe()
    chip.tool("tpm2_clearcontrol", "-C", "l", "s")
    with chip.open() as tpm, pytest.raises(ConflictError, match="clearing the TPM is disabled"):
        give(tpm)
    chip.tool("tpm2_clearcontrol", "-C", "p", "c")


def test_an_index_of_the_firmware_in_our_place(chip: SoftwareTpm) -> None:
    chip.wipe()
    with chip.open() as tpm:
        public = _define_for_platform(tpm, Index.SUDI_KEY, 8)
        with pytest.raises(TpmError, match="NV_DEFINED"):
            give(tpm)
        assert state(tpm) is State.PARTIAL
        tpm.run(Command.NV_UNDEFINE_SPACE, (PLATFORM, public.handle), b"", (Auth(),))


def test_provisioning_through_an_interposer_does_not_succeed(chip: SoftwareTpm) -> None:
    """One that denies the clear, one that shows another key, one that hides the result."""
    chip.wipe()
    probe: list[Recorder] = []

    def record(wire: Transport) -> Recorder:
        probe.append(Recorder(wire))
        return probe[0]

    with chip.open(record) as tpm:
        give(tpm)
    seen = list(zip(probe[0].commands, probe[0].answers, strict=True))
    old_key = next(answer for command, answer in seen if code_of(command) == Command.READ_PUBLIC)
    no_handles = bytes.fromhex("80010000001300000000000000000100000000")
    failure = bytes.fromhex("80010000000a00000101")
    for at, answer, more, message in (
        (Command.CLEAR, failure, {"lockout_auth": b"x"}, "TPM_RC_FAILURE"),
        (Command.READ_PUBLIC, old_key, {}, "another storage root key|not the name it claims"),
        (Command.GET_CAPABILITY, no_handles, {}, "did not keep what it was given"),
    ):
        chip.wipe()
        done: list[int] = []

        def lie(
            command: bytes, real: bytes, at: int = at, false: bytes = answer, done: list[int] = done
        ) -> bytes:
            done.append(code_of(command))
            ready = at != Command.GET_CAPABILITY or Command.HIERARCHY_CHANGE_AUTH in done
            wanted = ready and (
                at != Command.GET_CAPABILITY or command[10:14] == bytes((0, 0, 0, 1))
            )
            return false if code_of(command) == at and wanted else real

        with chip.open(lambda wire, lie=lie: Editor(wire, answer=lie)) as tpm:
            with pytest.raises(MachineError, match=message):
                give(tpm, **more)


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"sudi_key": b"k" * 2049}, MachineError),
        ({"sudi_cert": b""}, UsageError),
        ({"policy_version": "1"}, Exception),
        ({"luks_policy_key": b"no key"}, Exception),
    ],
)
def test_bad_input_changes_nothing(
    chip: SoftwareTpm, more: dict[str, object], error: type[Exception]
) -> None:
    chip.wipe()
    probes: list[Recorder] = []

    def probe(wire: Transport) -> Recorder:
        probes.append(Recorder(wire))
        return probes[0]

    with chip.open(probe) as tpm, pytest.raises(error):
        give(tpm, **more)
    assert Command.CLEAR not in {code_of(command) for command in probes[0].commands}


PLATFORM = Handle.of(Hierarchy.PLATFORM)


def _fill(tpm: Tpm, defined: list[NvPublic]) -> None:
    """Define indexes of the platform, which a clear does not remove, until the TPM refuses."""
    for index in range(0x1400000, 0x1400200):
        defined.append(_define_for_platform(tpm, index, 2048))


def _define_for_platform(tpm: Tpm, index: int, size: int) -> NvPublic:
    attributes = NvAttribute.PPWRITE | NvAttribute.PPREAD | NvAttribute.PLATFORMCREATE
    public = NvPublic(index, attributes, b"", size)
    parameters = sized(b"") + sized(public.marshal())
    tpm.run(Command.NV_DEFINE_SPACE, (PLATFORM,), parameters, (Auth(),))
    return public


def test_a_full_tpm_says_so(chip: SoftwareTpm) -> None:
    chip.wipe()
    defined: list[NvPublic] = []
    with chip.open() as tpm:
        with pytest.raises(TpmError) as caught:
            _fill(tpm, defined)
        assert caught.value.code == Rc.NV_SPACE
        with pytest.raises(MachineError, match="no room for NV index"):
            give(tpm)
        assert state(tpm) is not State.PROVISIONED
        for public in defined:
            tpm.run(Command.NV_UNDEFINE_SPACE, (PLATFORM, public.handle), b"", (Auth(),))
        assert give(tpm).srk_name
