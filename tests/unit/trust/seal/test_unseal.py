"""Sealing on a real software TPM: who reads, who does not, what a power cut leaves."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import pytest

from changed import replace
from fakes.swtpm import Editor, SoftwareTpm, code_of
from machineos.core.secret import Secret
from machineos.errors import (
    BootError,
    DocumentError,
    MachineError,
    PolicyError,
    TpmError,
)
from machineos.host.tpm.code import Rc
from machineos.host.tpm.commands import Tpm
from machineos.host.tpm.session import Auth
from machineos.host.tpm.wire import (
    Command,
    Handle,
    Hierarchy,
    NvAttribute,
    NvPublic,
    Operation,
    Permanent,
    Property,
    SessionKind,
)
from machineos.trust.measure.tpm_policy import SignedPolicy, policy_key, version_index
from machineos.trust.seal.layout import PHASES
from machineos.trust.seal.unseal import (
    DOOR,
    Index,
    State,
    close_door,
    opened,
    read_floor,
    state,
    unseal,
)
from unit.trust.sealing import (
    ADMIN,
    LUKS,
    NEW_DBX,
    OTHER_UKI,
    SECRETS,
    SECURE_BOOT,
    SUDI_CERT,
    SUDI_KEY,
    UKI,
    Machine,
    both,
    give,
    pem,
    signed,
)

pytestmark = pytest.mark.tool("swtpm")
PROVISION = "provision this machine again; what it had encrypted cannot be read any more"


# -- what works ----------------------------------------------------------------------------------


def test_what_was_provisioned_comes_back(machine: Machine) -> None:
    assert machine.report.policy_version == "0001"
    configuration = machine.unseal(Index.CONFIGURATION_KEY)
    storage = machine.unseal(Index.STORAGE_KEY)
    assert len(configuration) == len(storage) == 32
    assert len({configuration, storage, bytes(32)}) == 3
    password = machine.admin_password()
    assert password.startswith(b"trust-")
    assert len(password) == 32
    machine.close()
    assert machine.unseal(Index.SUDI_CERT) == SUDI_CERT
    assert machine.unseal(Index.SUDI_KEY) == SUDI_KEY
    machine.boot()
    assert machine.unseal() == configuration


def test_several_secrets_in_one_opening(machine: Machine) -> None:
    with machine.chip.open() as tpm:
        with opened(tpm, policies=both(), policy_key_pem=LUKS) as sealed:
            new = Secret(bytes(range(32)))
            sealed.write(Index.CONFIGURATION_KEY, new)
            assert sealed.read(Index.CONFIGURATION_KEY) == new
            with pytest.raises(PolicyError, match="has 32 bytes, not 3"):
                sealed.write(Index.CONFIGURATION_KEY, Secret(b"abc"))
            with pytest.raises(BootError, match="AUTH_UNAVAILABLE"):
                sealed.write(Index.STORAGE_KEY, new)
            assert sealed.read(Index.STORAGE_KEY)
            sealed.close_door("first")
            assert sealed.read(Index.SUDI_KEY) == Secret(SUDI_KEY)
            assert sealed.read(Index.SUDI_CERT) == Secret(SUDI_CERT)
        assert tpm.handles(0x03000000) == tpm.handles(0x80000000) == ()


def test_two_machines_have_different_secrets(chip: SoftwareTpm) -> None:
    seen = set()
    for _ in range(2):
        chip.wipe()
        with chip.open() as tpm:
            made = Machine(chip, give(tpm))
        made.boot()
        seen |= {made.unseal(), made.admin_password(), made.report.srk_name}
    assert len(seen) == 6


def test_a_second_signed_state_works(machine: Machine) -> None:
    policies = [signed(), signed(NEW_DBX), signed(uki=OTHER_UKI), signed(pcr12=bytes(32))]
    before = machine.unseal(policies=policies)
    machine.boot(NEW_DBX)
    assert machine.unseal(policies=policies) == before
    with pytest.raises(PolicyError, match="PCR 7 is not a value this product signed"):
        machine.unseal(policies=[signed()])


def test_pcr_12_counts_when_the_policy_names_it(machine: Machine) -> None:
    policies = [signed(pcr12=bytes(32))]
    assert machine.unseal(policies=policies)
    with machine.chip.open() as tpm:
        tpm.pcr_extend(12, b"c" * 32)
    with pytest.raises(PolicyError, match=r"PCR 12 is not a value .* command line"):
        machine.unseal(policies=policies)


# -- who gets nothing ----------------------------------------------------------------------------


def test_owner_and_others_cannot_read(machine: Machine) -> None:
    password = machine.admin_password()
    with machine.chip.open() as tpm:
        tpm.nv_undefine(
            NvPublic(*_probe(tpm, password)), Auth(None, password)
        )  # it is the password
        for index in (*SECRETS, Index.ADMIN_PASSWORD):
            public = tpm.nv_read_public(index)
            for who, value in (
                (Handle.of(Hierarchy.OWNER), password),
                (Handle.of(Hierarchy.PLATFORM), b""),
                (public.handle, b""),
                (public.handle, password),
            ):
                with pytest.raises(TpmError) as caught:
                    tpm.nv_read(public, Auth(None, value), by=who)
                assert caught.value.code in {Rc.NV_AUTHORIZATION, Rc.AUTH_UNAVAILABLE}


def _probe(tpm: Tpm, password: bytes) -> tuple[int, NvAttribute, bytes, int]:
    fields = (0x1500060, NvAttribute.OWNERWRITE | NvAttribute.OWNERREAD, b"", 4)
    tpm.nv_define(NvPublic(*fields), Auth(None, password))
    return fields


def test_a_policy_session_without_the_policy_cannot_read(machine: Machine) -> None:
    with machine.chip.open() as tpm:
        key = tpm.read_storage_key(0x81000001)
        for pcrs in ((), (7, 11)):
            with tpm.session(SessionKind.POLICY, key) as session:
                if pcrs:
                    tpm.policy_pcr(session, *pcrs)
                with pytest.raises(TpmError) as caught:
                    tpm.nv_read(tpm.nv_read_public(Index.CONFIGURATION_KEY), Auth(session))
                assert caught.value.code == Rc.POLICY_FAIL


def test_after_the_door_is_closed_nothing_is_readable(machine: Machine) -> None:
    with machine.chip.open() as tpm:
        before = tpm.pcr_read(7, 11)
        close_door(tpm, "second", srk_name=machine.report.srk_name)
        after = tpm.pcr_read(7, 11)
    for pcr in (7, 11):
        assert after[pcr] == hashlib.sha256(before[pcr] + DOOR[pcr]).digest()
    assert DOOR[7].hex() == "b7135cbb321a66fa848b07288bd008b89bd5b7496c4569c5e1a4efd5f7c8e0a7"
    for index in SECRETS:
        with pytest.raises(PolicyError, match="the initrd has been left"):
            machine.unseal(index)
    with pytest.raises(PolicyError, match="the PCRs are not values this product signed"):
        machine.unseal(policies=[signed(hints=False)])


def test_the_door_closes_in_a_session_that_was_open(machine: Machine) -> None:
    with machine.chip.open() as tpm:
        with opened(tpm, policies=[signed()], policy_key_pem=LUKS) as sealed:
            assert sealed.read(Index.CONFIGURATION_KEY)
            close_door(tpm, "second")
            with pytest.raises(PolicyError, match="does not fulfil its signed policy"):
                sealed.read(Index.CONFIGURATION_KEY)


def test_the_door_of_a_machine_that_is_not_provisioned(chip: SoftwareTpm) -> None:
    """There is nothing to keep anybody from."""
    chip.wipe()
    with chip.open() as tpm:
        for name in (None, b"pinned"):
            with pytest.raises(BootError, match="not provisioned"):
                close_door(tpm, "second", srk_name=name)
        assert tpm.pcr_read(7, 11) == {7: bytes(32), 11: bytes(32)}


@pytest.mark.parametrize(
    ("secure_boot", "uki", "message"),
    [
        (NEW_DBX, UKI, "PCR 7 is not a value this product signed: Secure Boot state or certif"),
        (SECURE_BOOT, OTHER_UKI, "PCR 11 is not a value this product signed: another UKI"),
        (NEW_DBX, OTHER_UKI, "PCR 7 and PCR 11 are not values this product signed"),
    ],
)
def test_another_boot_gets_nothing(
    machine: Machine, secure_boot: bytes, uki: bytes, message: str
) -> None:
    machine.boot(secure_boot, uki)
    with pytest.raises(PolicyError, match=message) as caught:
        machine.unseal()
    assert "\n" not in caught.value.message


def test_forged_hints_do_not_help(machine: Machine) -> None:
    """A policy for another UKI, dressed up as if it had expected this one."""
    machine.boot(uki=OTHER_UKI)
    forged = replace(signed(), values=signed(uki=OTHER_UKI).values)
    with pytest.raises(PolicyError, match="provisioned for another product"):
        machine.unseal(policies=[forged])
    forged = replace(signed(uki=OTHER_UKI), signature=signed().signature)
    with pytest.raises(PolicyError, match="signature of this UKI's TPM policy is wrong"):
        machine.unseal(policies=[forged])


def test_a_policy_of_a_stranger(machine: Machine) -> None:
    stranger = signed(by="stranger")
    with pytest.raises(PolicyError, match="no TPM policy signed with the product's key"):
        machine.unseal(policies=[stranger])
    luks = policy_key(LUKS)
    with pytest.raises(PolicyError, match="signature of this UKI's TPM policy is wrong"):
        machine.unseal(policies=[replace(stranger, fingerprint=luks.fingerprint)])
    with pytest.raises(PolicyError, match="was sealed for another product's key"):
        machine.unseal(policies=[stranger], key=pem("stranger"))
    with pytest.raises(PolicyError, match="was sealed for another product's key"):
        machine.unseal(Index.ADMIN_PASSWORD)
    with pytest.raises(PolicyError, match="no TPM policy signed"):
        machine.unseal(policies=[])


def test_a_policy_without_version_or_pcr_7_is_not_used(machine: Machine) -> None:
    for change in ({"version": None}, {"pcrs": (11,), "values": ()}):
        with pytest.raises(PolicyError, match="no TPM policy signed"):
            machine.unseal(policies=[replace(signed(), **change)])


# -- the floor -----------------------------------------------------------------------------------


def _raise(machine: Machine, version: str, policies: Sequence[SignedPolicy]) -> None:
    """Raise the floor in the second phase of a boot of its own."""
    machine.boot(uki=OTHER_UKI if policies[0].values == signed(uki=OTHER_UKI).values else UKI)
    with machine.chip.open() as tpm:
        with opened(tpm, policies=policies, policy_key_pem=LUKS) as sealed:
            sealed.close_door("first")
            sealed.raise_floor(version)
            assert sealed.floor() == version


def test_an_older_uki_is_refused_once_the_floor_was_raised(machine: Machine) -> None:
    old, new = both(), both(uki=OTHER_UKI, version="0003")
    machine.boot(uki=OTHER_UKI)
    secret = machine.unseal(policies=new)
    _raise(machine, "0002", new)
    _raise(machine, "0002", new)  # once more changes nothing
    machine.boot(uki=OTHER_UKI)
    assert machine.unseal(policies=new) == secret
    machine.boot()
    with pytest.raises(PolicyError, match=r"too old: its policy version is 0001, the TPM .* 0002"):
        machine.unseal(policies=old)
    with machine.chip.open() as tpm:
        assert read_floor(tpm) == "0002"
        # and the TPM itself refuses, whatever our own code thinks
        key, public = tpm.read_storage_key(0x81000001), version_index(policy_key(LUKS))
        with tpm.session(SessionKind.POLICY, key) as session:
            tpm.policy_pcr(session, 7, 11)
            with pytest.raises(TpmError) as caught:
                tpm.policy_nv(session, public, b"0001", Operation.UNSIGNED_LE)
        assert caught.value.code == Rc.POLICY


def test_the_floor_only_rises_and_not_above_the_running_uki(machine: Machine) -> None:
    policies = both(version="0005")
    _raise(machine, "0004", policies)
    with pytest.raises(PolicyError, match="is 0004; it is never lowered to 0003"):
        _raise(machine, "0003", policies)
    with pytest.raises(PolicyError, match="0006 would lock out this UKI, which has 0005"):
        _raise(machine, "0006", policies)
    with machine.chip.open() as tpm:
        assert read_floor(tpm, srk_name=machine.report.srk_name) == "0004"
    _raise(machine, "0005", policies)
    with machine.chip.open() as tpm:
        assert read_floor(tpm) == "0005"


def test_a_floor_is_four_digits(machine: Machine) -> None:
    for version in ("2", "000a", ""):
        with pytest.raises(DocumentError, match=r"policy version: .* is not four digits"):
            _raise(machine, version, both())
    with machine.chip.open() as tpm:
        assert read_floor(tpm) == "0001"


def test_nobody_else_writes_the_floor(machine: Machine) -> None:
    password = machine.admin_password()
    with machine.chip.open() as tpm:
        public = tpm.nv_read_public(Index.POLICY_VERSION)
        key = tpm.read_storage_key(0x81000001)
        for who, value in ((Handle.of(Hierarchy.OWNER), password), (public.handle, b"")):
            with pytest.raises(TpmError) as caught:
                tpm.nv_write(public, b"0000", Auth(None, value), by=who)
            assert caught.value.code in {Rc.NV_AUTHORIZATION, Rc.AUTH_UNAVAILABLE}
        # the policy of the first write holds only once
        with tpm.session(SessionKind.POLICY, key) as session:
            tpm.policy_nv_written(session, written=False)
            tpm.policy_command_code(session, Command.NV_WRITE)
            luks = policy_key(LUKS)
            first = tpm.policy_get_digest(session)
            tpm.policy_or(session, (luks.policy("second"), first))
            with pytest.raises(TpmError):
                tpm.nv_write(public, b"0000", Auth(session))
    with machine.chip.open() as tpm:
        assert read_floor(tpm) == "0001"
    with machine.chip.open() as tpm:  # in the first phase, and outside the signed state
        with opened(tpm, policies=both(), policy_key_pem=LUKS) as sealed:
            with pytest.raises(PolicyError, match="the first door is still open"):
                sealed.write_version("0002")
    machine.chip.power_cycle()
    with machine.chip.open() as tpm, pytest.raises(PolicyError):
        with opened(tpm, policies=both(), policy_key_pem=LUKS) as sealed:
            sealed.write_version("0002")


# -- TPMs in another state -----------------------------------------------------------------------


def test_a_cleared_tpm_is_named_and_gets_no_new_key(machine: Machine) -> None:
    with machine.chip.open() as tpm:
        tpm.clear(Hierarchy.PLATFORM)
        before = tpm.handles(0x01000000), tpm.handles(0x81000000)
    with pytest.raises(BootError) as caught:
        machine.unseal()
    assert caught.value.message == (
        "the TPM is not provisioned, or was cleared: it has no storage root key"
    )
    assert caught.value.hint == PROVISION
    with machine.chip.open() as tpm:
        assert (tpm.handles(0x01000000), tpm.handles(0x81000000)) == before == ((), ())


def test_another_tpm_is_noticed(machine: Machine) -> None:
    machine.chip.wipe()
    with machine.chip.open() as tpm:
        give(tpm)
    machine.boot()
    with pytest.raises(BootError, match="not the one this machine was provisioned with"):
        machine.unseal()


@pytest.mark.tool("tpm2")
def test_a_tpm_without_sha256_pcrs(chip: SoftwareTpm) -> None:
    chip.wipe()
    with chip.open() as tpm:
        made = Machine(chip, give(tpm))
    chip.tool("tpm2_pcrallocate", "sha1:all+sha256:none")
    try:
        chip.power_cycle()
        for act in (
            lambda tpm: unseal(tpm, Index.SUDI_KEY, policies=[signed()], policy_key_pem=LUKS),
            lambda tpm: close_door(tpm, "first", srk_name=made.report.srk_name),
            lambda tpm: give(tpm, again=True),
        ):
            with (
                chip.open() as tpm,
                pytest.raises((BootError, MachineError), match="no SHA-256 bank of PCRs"),
            ):
                act(tpm)
    finally:
        chip.tool("tpm2_pcrallocate", "sha1:all+sha256:all+sha384:all+sha512:all")
        chip.wipe()


def test_an_index_that_is_open_is_not_believed(machine: Machine) -> None:
    """Somebody with the owner's password replaced a secret by one that he knows."""
    password = machine.admin_password()
    owner = Handle.of(Hierarchy.OWNER)
    with machine.chip.open() as tpm:
        public = tpm.nv_read_public(Index.CONFIGURATION_KEY)
        tpm.nv_undefine(public, Auth(None, password))
        attributes = NvAttribute.OWNERWRITE | NvAttribute.POLICYREAD | NvAttribute.OWNERREAD
        planted = NvPublic(public.index, attributes, public.policy, 32)
        tpm.nv_define(planted, Auth(None, password))
        message = r"^the TPM is only half provisioned: configuration key \(NV 0x1500040\) is empty$"
        with pytest.raises(BootError, match=message):
            unseal(tpm, Index.CONFIGURATION_KEY, policies=[signed()], policy_key_pem=LUKS)
        tpm.nv_write(planted, bytes(32), Auth(None, password), by=owner)
    with pytest.raises(PolicyError, match="can be read without a policy"):
        machine.unseal()


def test_dictionary_lockout_is_on_and_does_not_stop_a_boot(machine: Machine) -> None:
    with machine.chip.open() as tpm:
        found = tpm.properties(Property.MAX_AUTH_FAIL, 3)
        assert found == {
            Property.MAX_AUTH_FAIL: 32,
            Property.LOCKOUT_INTERVAL: 600,
            Property.LOCKOUT_RECOVERY: 86400,
        }
        password = b"guarded"
        guarded = NvPublic(0x1500061, NvAttribute.AUTHREAD | NvAttribute.AUTHWRITE, b"", 4)
    admin = machine.admin_password()
    with machine.chip.open() as tpm:
        tpm.nv_define(guarded, Auth(None, admin))
        codes = []
        for _ in range(40):
            with pytest.raises(TpmError) as caught:
                tpm.nv_write(guarded, b"abcd", Auth(None, password))
            codes.append(caught.value.code)
        assert codes == [Rc.AUTH_FAIL] * 32 + [Rc.LOCKOUT] * 8
        flags = Permanent(tpm.property(Property.PERMANENT))
        assert Permanent.IN_LOCKOUT in flags
    assert machine.unseal(Index.STORAGE_KEY)


def test_a_secret_that_was_deleted(machine: Machine) -> None:
    password = machine.admin_password()
    with machine.chip.open() as tpm:
        tpm.nv_undefine(tpm.nv_read_public(Index.SUDI_KEY), Auth(None, password))
        assert state(tpm) is State.PARTIAL
    machine.close()
    with pytest.raises(BootError) as caught:
        machine.unseal(Index.SUDI_KEY)
    assert caught.value.message == ("the TPM is not provisioned: it has no sudi key (NV 0x1500022)")
    assert caught.value.hint == PROVISION


def test_a_floor_that_is_no_version(machine: Machine) -> None:
    with machine.chip.open() as tpm:
        with opened(tpm, policies=both(), policy_key_pem=LUKS) as sealed:
            sealed.close_door("first")
            sealed.write_version("12x4")
    with pytest.raises(BootError, match="policy version in the TPM is not four digits"):
        machine.unseal()


@pytest.mark.parametrize(
    ("code", "message"),
    [(0x921, "the TPM is locked after too many wrong passwords"), (0x101, "TPM_RC_FAILURE")],
)
@pytest.mark.parametrize("at", [Command.READ_PUBLIC, Command.NV_READ_PUBLIC])
def test_a_tpm_that_refuses(machine: Machine, code: int, message: str, at: Command) -> None:
    refusal = bytes.fromhex("80010000000a") + code.to_bytes(4, "big")

    def refuse(command: bytes, answer: bytes) -> bytes:
        return refusal if code_of(command) == at else answer

    with pytest.raises(BootError, match=message):
        machine.unseal(between=lambda wire: Editor(wire, answer=refuse))


# -- other people's eyes -------------------------------------------------------------------------


@pytest.mark.tool("tpm2")
def test_tpm2_tools_see_the_layout(machine: Machine) -> None:
    shown = machine.chip.tool("tpm2_nvreadpublic")
    areas = {part[:9]: part for part in re.split(r"^(?=0x)", shown, flags=re.MULTILINE) if part}
    assert set(areas) == {f"0x{index:x}" for index in Index}
    for index in SECRETS:
        text = areas[f"0x{index:x}"]
        assert "policyread" in text
        assert "no_da" in text
        for open_to in ("ownerread", "authread", "ppread"):
            assert open_to not in text
        assert policy_key(LUKS).policy(PHASES[index]).hex().upper() in text
    assert policy_key(ADMIN).policy("first").hex().upper() in areas["0x1500001"]
    assert "ownerwrite" not in areas["0x1500020"]
    assert "authread" in areas["0x1500020"]
    assert version_index(policy_key(LUKS)).name.hex() in areas["0x1500020"]
    variable = machine.chip.tool("tpm2_getcap", "properties-variable")
    for flag in ("ownerAuthSet", "endorsementAuthSet", "lockoutAuthSet"):
        assert next(line for line in variable.splitlines() if flag in line).endswith("1")
