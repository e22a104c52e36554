"""The two phases of a boot: which secret the TPM gives out in which, whatever our code thinks.

The sessions are made by hand, so that it is the TPM that refuses.
"""

from __future__ import annotations

import pytest

from fakes.swtpm import SoftwareTpm
from machineos.errors import BootError, PolicyError, TpmError
from machineos.host.tpm.code import Rc
from machineos.host.tpm.commands import Tpm
from machineos.host.tpm.session import Auth
from machineos.host.tpm.wire import (
    Handle,
    Hierarchy,
    NvAttribute,
    NvPublic,
    Operation,
    SessionKind,
    sha256,
)
from machineos.trust.measure.tpm_policy import (
    PHASES,
    Phase,
    Purpose,
    SignedPolicy,
    policy_key,
    policy_ref,
    version_index,
)
from machineos.trust.seal.layout import LAYOUT_VERSION, STORAGE_ROOT, Index, State, state
from machineos.trust.seal.unseal import opened, unseal
from unit.trust.sealing import (
    FIRST_SECRETS,
    LUKS,
    SECOND_SECRETS,
    SECRETS,
    SUDI_CERT,
    SUDI_KEY,
    Machine,
    both,
    give,
    signed,
)

pytestmark = pytest.mark.tool("swtpm")
KEY = policy_key(LUKS)


def read(tpm: Tpm, index: Index, policy: SignedPolicy, ref: Purpose) -> bytes:
    """Read a secret with one signed policy and the reference that it is said to be signed with."""
    key, floor = tpm.read_storage_key(STORAGE_ROOT), version_index(KEY)
    version = policy.version
    assert version is not None
    loaded = tpm.load_external(KEY.public)
    try:
        digest = sha256(policy.policy, policy_ref(ref))
        ticket = tpm.verify_signature(loaded, digest, policy.signature)
    finally:
        tpm.flush(loaded.value)
    with tpm.session(SessionKind.POLICY, key) as session:

        def prove() -> None:
            tpm.policy_pcr(session, *policy.pcrs)
            tpm.policy_nv(session, floor, version.encode(), Operation.UNSIGNED_LE)
            tpm.policy_authorize(session, policy.policy, KEY.name, ticket, policy_ref(ref))

        public = tpm.nv_read_public(index)
        return tpm.nv_read(public, Auth(session, encrypt=True), prepare=prove)


def refused(machine: Machine, index: Index, policy: SignedPolicy, ref: Purpose) -> int:
    with machine.chip.open() as tpm, pytest.raises(TpmError) as caught:
        read(tpm, index, policy, ref)
    return caught.value.code


def test_each_secret_comes_in_its_phase(machine: Machine) -> None:
    """The control: what is refused below is read so."""
    first, second = both()
    with machine.chip.open() as tpm:
        for index in FIRST_SECRETS:
            assert len(read(tpm, index, first, "first")) == 32
    machine.close()
    with machine.chip.open() as tpm:
        for index in SECOND_SECRETS:
            assert read(tpm, index, second, "second") in {SUDI_CERT, SUDI_KEY}


@pytest.mark.parametrize("index", SECOND_SECRETS)
def test_the_identity_is_not_given_out_in_the_first_phase(machine: Machine, index: Index) -> None:
    first, second = both()
    assert refused(machine, index, first, "first") == Rc.POLICY_FAIL
    assert refused(machine, index, second, "second") == Rc.VALUE  # PCR 11 is not yet so
    assert refused(machine, index, first, "second") == Rc.SIGNATURE


@pytest.mark.parametrize("index", FIRST_SECRETS)
def test_the_keys_are_not_given_out_behind_the_first_door(machine: Machine, index: Index) -> None:
    """Neither with the policy of the phase that is over nor with that of the one that is on."""
    machine.close()
    first, second = both()
    assert refused(machine, index, first, "first") == Rc.VALUE
    assert refused(machine, index, second, "second") == Rc.POLICY_FAIL
    assert refused(machine, index, second, "first") == Rc.SIGNATURE


@pytest.mark.parametrize("doors", [("second",), ("first", "second"), ("second", "first")])
def test_nothing_is_given_out_behind_the_second_door(
    machine: Machine, doors: tuple[Phase, ...]
) -> None:
    for phase in doors:
        machine.close(phase)
    for index in SECRETS:
        for policy, ref in zip(both(), PHASES, strict=True):
            assert refused(machine, index, policy, ref) == Rc.VALUE
        with pytest.raises(PolicyError):
            machine.unseal(index)


def test_a_policy_that_was_signed_with_the_wrong_reference_opens_nothing(machine: Machine) -> None:
    """The state is that of a phase, the signature for the other: what opens then is the other's, if
    anything, so a builder that mixes them up makes an image that does not boot."""
    crossed = signed(ref="second")
    assert refused(machine, Index.CONFIGURATION_KEY, crossed, "first") == Rc.SIGNATURE
    assert refused(machine, Index.CONFIGURATION_KEY, crossed, "second") == Rc.POLICY_FAIL
    with pytest.raises(PolicyError, match="signature of this UKI's TPM policy is wrong"):
        machine.unseal(policies=[crossed])
    machine.close()
    crossed = signed(phase="second", ref="first")
    assert refused(machine, Index.SUDI_KEY, crossed, "second") == Rc.SIGNATURE
    assert refused(machine, Index.SUDI_KEY, crossed, "first") == Rc.POLICY_FAIL
    with pytest.raises(PolicyError, match="signature of this UKI's TPM policy is wrong"):
        machine.unseal(Index.SUDI_KEY, policies=[crossed])


def test_our_own_code_says_which_door_was_passed(machine: Machine) -> None:
    for index in SECOND_SECRETS:
        with pytest.raises(PolicyError, match="the first door is still open"):
            machine.unseal(index)
    machine.close()
    for index in FIRST_SECRETS:
        with pytest.raises(PolicyError, match="the first door is closed"):
            machine.unseal(index)


def test_one_session_goes_from_phase_to_phase_and_the_tpm_refuses_what_is_over(
    machine: Machine,
) -> None:
    """What was proved before a door is asked of the TPM again behind it; a refusal does no harm."""
    with machine.chip.open() as tpm:
        with opened(tpm, policies=both(), policy_key_pem=LUKS) as sealed:
            with pytest.raises(PolicyError, match="the first door is still open"):
                sealed.read(Index.SUDI_KEY)
            key = sealed.read(Index.CONFIGURATION_KEY)
            assert sealed.read(Index.CONFIGURATION_KEY) == key
            sealed.close_door("first")
            for _ in range(2):
                with pytest.raises(PolicyError, match=r"does not fulfil its .*VALUE"):
                    sealed.read(Index.CONFIGURATION_KEY)
                assert sealed.read(Index.SUDI_CERT)
            sealed.close_door("second")
            for index in SECRETS:
                with pytest.raises(PolicyError):
                    sealed.read(index)
        assert tpm.handles(0x03000000) == tpm.handles(0x80000000) == ()


def test_a_tpm_of_the_layout_before_says_so(chip: SoftwareTpm) -> None:
    """Its version index has another name, so no policy fits; that alone would read as if it were
    another product's."""
    chip.wipe()
    with chip.open() as tpm:
        machine = Machine(chip, give(tpm))
    machine.boot()
    password = machine.admin_password()
    owner = Handle.of(Hierarchy.OWNER)
    with chip.open() as tpm:
        layout = tpm.nv_read_public(Index.LAYOUT)
        tpm.nv_write(layout, b"00000004", Auth(None, password), by=owner)
        floor = tpm.nv_read_public(Index.POLICY_VERSION)
        assert unseal(tpm, Index.STORAGE_KEY, policies=both(), policy_key_pem=LUKS)
        tpm.nv_undefine(floor, Auth(None, password))
        attributes = NvAttribute.OWNERWRITE | NvAttribute.AUTHREAD | NvAttribute.NO_DA
        former = NvPublic(Index.POLICY_VERSION, attributes, KEY.policy("first"), 4)
        tpm.nv_define(former, Auth(None, password))
        tpm.nv_write(former, b"0001", Auth(None, password), by=owner)
        assert state(tpm) is State.FOREIGN
    with pytest.raises(BootError) as caught:
        machine.unseal()
    assert caught.value.message == (
        "the TPM is provisioned by another version: its layout is '00000004', this image knows "
        f"'{LAYOUT_VERSION.decode()}'"
    )
    assert caught.value.hint.startswith("provision this machine again")
