"""Provisioning a real software TPM: what is left alone, what is refused, what it leaves."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from fakes.swtpm import Editor, Recorder, SoftwareTpm, code_of
from machineos.core.secret import Secret
from machineos.errors import (
    ConflictError,
    DocumentError,
    MachineError,
    MachineOSError,
    TpmError,
    UsageError,
)
from machineos.host.tpm.code import Rc
from machineos.host.tpm.commands import Tpm
from machineos.host.tpm.session import Auth
from machineos.host.tpm.transport import Transport
from machineos.host.tpm.wire import (
    Command,
    Handle,
    Hierarchy,
    NvAttribute,
    NvPublic,
    Property,
    Reader,
    StorageKey,
    sized,
)
from machineos.trust.measure.tpm_policy import policy_key, version_index
from machineos.trust.seal.layout import STORAGE_ROOT
from machineos.trust.seal.provision import Report, _items, provision
from machineos.trust.seal.unseal import Index, State, read_floor, state
from unit.trust.sealing import (
    ADMIN,
    LUKS,
    SUDI_CERT,
    SUDI_KEY,
    Machine,
    give,
    signed,
)

pytestmark = pytest.mark.tool("swtpm")

PLATFORM = Handle.of(Hierarchy.PLATFORM)
CLEAR_IT = "clear the TPM in the firmware setup"


def recorded(chip: SoftwareTpm, act: Callable[[Tpm], object]) -> Recorder:
    """Do something with the TPM and return what went over the bus."""
    probes: list[Recorder] = []

    def probe(wire: Transport) -> Recorder:
        probes.append(Recorder(wire))
        return probes[0]

    with chip.open(probe) as tpm:
        act(tpm)
    return probes[0]


# -- what it leaves ------------------------------------------------------------------------------


def test_every_index_is_as_the_layout_says(machine: Machine) -> None:
    sealed = NvAttribute.OWNERWRITE | NvAttribute.POLICYREAD | NvAttribute.NO_DA
    luks, admin = policy_key(LUKS).policy("first"), policy_key(ADMIN).policy("first")
    second = policy_key(LUKS).policy("second")
    layout = NvAttribute.OWNERWRITE | NvAttribute.AUTHREAD | NvAttribute.NO_DA
    wanted = [
        NvPublic(0x1500001, sealed, admin, 32),
        NvPublic(0x1500002, layout, b"", 8),
        version_index(policy_key(LUKS)),
        NvPublic(0x1500021, sealed, second, len(SUDI_CERT)),
        NvPublic(0x1500022, sealed, second, len(SUDI_KEY)),
        NvPublic(0x1500030, sealed, luks, 32),
        NvPublic(0x1500040, sealed | NvAttribute.POLICYWRITE, luks, 32),
    ]
    with machine.chip.open() as tpm:
        found = [tpm.nv_read_public(index) for index in tpm.handles(0x01000000)]
        assert found == [public.written() for public in wanted]
        assert tpm.nv_read(found[1]) == b"00000005"
        assert tpm.nv_read(found[2]) == b"0001"
        assert tpm.handles(0x80000000) == tpm.handles(0x02000000) == ()


def test_what_it_reports(chip: SoftwareTpm) -> None:
    chip.wipe()
    with chip.open() as tpm:
        report = give(tpm, policy_version="0007")
        assert report == Report(tpm.read_storage_key(0x81000001).name, "0007", "00000005")
        assert STORAGE_ROOT == 0x81000001
        assert read_floor(tpm) == "0007"


def test_the_first_policy_version_is_0001(chip: SoftwareTpm) -> None:
    chip.wipe()
    with chip.open() as tpm:
        report = provision(
            tpm,
            luks_policy_key=LUKS,
            admin_policy_key=ADMIN,
            sudi_cert=SUDI_CERT,
            sudi_key=Secret(SUDI_KEY),
            random=bytes,
        )
    assert report.policy_version == "0001"


def test_wrong_guesses_lock_for_a_while(machine: Machine) -> None:
    with machine.chip.open() as tpm:
        assert tpm.properties(Property.MAX_AUTH_FAIL, 3) == {
            Property.MAX_AUTH_FAIL: 32,
            Property.LOCKOUT_INTERVAL: 600,
            Property.LOCKOUT_RECOVERY: 86400,
        }


def test_secrets_are_made_of_our_randomness_and_the_tpms(chip: SoftwareTpm) -> None:
    chip.wipe()
    asked: list[int] = []

    def random(count: int) -> bytes:
        asked.append(count)
        return bytes([len(asked)]) * count

    def act(tpm: Tpm) -> None:
        report.append(
            provision(
                tpm,
                luks_policy_key=LUKS,
                admin_policy_key=ADMIN,
                sudi_cert=SUDI_CERT,
                sudi_key=Secret(SUDI_KEY),
                random=random,
            )
        )

    report: list[Report] = []
    bus = recorded(chip, act)
    pairs = list(zip(bus.commands, bus.answers, strict=True))
    drawn = [
        Reader(answer[10:], "").sized()
        for command, answer in pairs
        if code_of(command) == Command.GET_RANDOM
    ]
    assert asked == [32, 32, 32]
    secrets = [
        hashlib.sha256(bytes([number]) * 32 + theirs).digest()
        for number, theirs in enumerate(drawn, 1)
    ]
    machine = Machine(chip, report[0])
    machine.boot()
    assert machine.admin_password() == b"trust-" + secrets[0][:13].hex().encode()
    assert machine.unseal(Index.STORAGE_KEY) == secrets[1]
    assert machine.unseal(Index.CONFIGURATION_KEY) == secrets[2]


def test_no_item_shows_its_secret() -> None:
    key, password, made = b"key of the device", b"trust-password", b"made by the TPM"
    luks, admin = policy_key(LUKS), policy_key(ADMIN)
    items = _items(luks, admin, b"c", Secret(key), Secret(password), lambda _: Secret(made))
    assert [item.data for item in items] == [
        Secret(one) for one in (password, b"c", key, made, made)
    ]
    shown = repr(items)
    assert shown.count("data=Secret(hidden)") == 5
    for secret in (key, password, made):
        assert secret.decode() not in shown


def test_the_lockout_password_comes_last_and_the_layout_before_it(chip: SoftwareTpm) -> None:
    """So a power cut anywhere leaves a TPM that can be cleared, or one that is complete."""
    chip.wipe()
    commands = recorded(chip, give).commands
    changing = {
        Command.CLEAR, Command.NV_DEFINE_SPACE, Command.NV_WRITE, Command.HIERARCHY_CHANGE_AUTH,
        Command.EVICT_CONTROL, Command.DICTIONARY_ATTACK_PARAMETERS,
    }  # fmt: skip
    order = [
        (Command(code_of(command)), int.from_bytes(command[10:14], "big"))
        for command in commands
        if code_of(command) in changing
    ]
    owner = Hierarchy.OWNER
    define = (Command.NV_DEFINE_SPACE, owner)
    write = (Command.NV_WRITE, owner)
    assert order == [
        (Command.CLEAR, Hierarchy.LOCKOUT),
        (Command.EVICT_CONTROL, owner),
        (Command.DICTIONARY_ATTACK_PARAMETERS, Hierarchy.LOCKOUT),
        define, write,
        define, write, write,
        define, write, write,
        define, write,
        define, write,
        define, (Command.NV_WRITE, Index.POLICY_VERSION),
        (Command.HIERARCHY_CHANGE_AUTH, Hierarchy.ENDORSEMENT),
        (Command.HIERARCHY_CHANGE_AUTH, owner),
        define, write,
        (Command.HIERARCHY_CHANGE_AUTH, Hierarchy.LOCKOUT),
    ]  # fmt: skip


def test_what_is_written_is_hidden_on_the_way(chip: SoftwareTpm) -> None:
    """Attributes of the session: continue, decrypt. Passwords are no less hidden."""
    chip.wipe()
    commands = recorded(chip, give).commands
    for command, handles in (
        (Command.NV_WRITE, 2), (Command.NV_DEFINE_SPACE, 1), (Command.HIERARCHY_CHANGE_AUTH, 1),
    ):  # fmt: skip
        sent = [one for one in commands if code_of(one) == command]
        attributes = [one[10 + 4 * handles + 4 + 4 + 2 + 32] for one in sent]
        plain = 1 if command == Command.NV_DEFINE_SPACE else 0  # of the version index: all public
        assert sorted(attributes) == [0x01] * plain + [0x21] * (len(sent) - plain)


# -- what is left alone --------------------------------------------------------------------------


def test_a_provisioned_tpm_is_left_alone(machine: Machine) -> None:
    secret = machine.unseal()
    with machine.chip.open() as tpm:
        assert state(tpm) is State.PROVISIONED
        with pytest.raises(ConflictError) as caught:
            give(tpm)
        assert caught.value.message == "the TPM is provisioned already"
        assert caught.value.hint == "say explicitly that it is to be done again"
        with pytest.raises(ConflictError) as caught:
            give(tpm, again=True)
        assert caught.value.message == "the TPM has an owner: its lockout password is set"
        assert caught.value.hint == f"give its admin password, or {CLEAR_IT}"
        with pytest.raises(ConflictError) as caught:
            give(tpm, again=True, lockout_auth=b"wrong")
        assert caught.value.message == ("the admin password of the TPM is wrong, or it is locked")
        assert caught.value.hint == CLEAR_IT
        assert tpm.handles(0x80000000) == tpm.handles(0x02000000) == ()
    assert machine.unseal() == secret


def test_the_right_password_is_not_tried_without_being_asked(machine: Machine) -> None:
    password = machine.admin_password()
    with machine.chip.open() as tpm, pytest.raises(ConflictError, match="provisioned already"):
        provision(
            tpm,
            luks_policy_key=LUKS,
            admin_policy_key=ADMIN,
            sudi_cert=SUDI_CERT,
            sudi_key=Secret(SUDI_KEY),
            random=bytes,
            lockout_auth=Secret(password),
        )


def test_again_with_the_admin_password(machine: Machine) -> None:
    secret, password = machine.unseal(), machine.admin_password()
    with machine.chip.open() as tpm:
        machine.report = give(tpm, again=True, lockout_auth=password, policy_version="0004")
        assert tpm.handles(0x80000000) == ()
    machine.boot()
    policies = [signed(version="0004")]
    assert machine.unseal(policies=policies) not in {secret, bytes(32)}
    with machine.chip.open() as tpm:
        assert read_floor(tpm) == "0004"


def test_a_locked_tpm_says_so(machine: Machine) -> None:
    password = machine.admin_password()
    with machine.chip.open() as tpm:
        for tried in (b"wrong", password):  # after one wrong try even the right one is refused
            with pytest.raises(ConflictError, match="is wrong, or it is locked"):
                give(tpm, again=True, lockout_auth=tried)


def test_a_tpm_of_the_predecessor_is_left_alone(chip: SoftwareTpm) -> None:
    chip.wipe()
    layout = NvPublic(Index.LAYOUT, NvAttribute(0x00060002), b"", 8)
    with chip.open() as tpm:
        tpm.nv_define(layout)
        assert state(tpm) is State.PARTIAL
        tpm.nv_write(layout, b"00000003", by=Handle.of(Hierarchy.OWNER))
        assert state(tpm) is State.FOREIGN
        with pytest.raises(ConflictError) as caught:
            give(tpm)
        assert caught.value.message == "the TPM is provisioned by another version already"
        assert give(tpm, again=True).layout_version == "00000005"


@pytest.mark.parametrize(
    ("bits", "enough"), [("800800", True), ("800000", False), ("000800", False), ("ffffff", True)]
)
def test_a_tpm_must_have_the_two_pcrs(chip: SoftwareTpm, bits: str, enough: bool) -> None:
    body = bytes.fromhex("00 00000005 00000001 000b 03" + bits)
    shown = bytes.fromhex("8001") + (10 + len(body)).to_bytes(4, "big") + bytes(4) + body

    def lie(command: bytes, answer: bytes) -> bytes:
        asked = code_of(command) == Command.GET_CAPABILITY and command[10:14] == bytes((0, 0, 0, 5))
        return shown if asked else answer

    chip.wipe()
    with chip.open(lambda wire: Editor(wire, answer=lie)) as tpm:
        if enough:
            give(tpm)
            return
        with pytest.raises(MachineError) as caught:
            give(tpm)
    assert (caught.value.message, caught.value.hint) == (
        "the TPM has no SHA-256 bank of PCRs", "switch SHA-256 on in the firmware setup",
    )  # fmt: skip


@pytest.mark.tool("tpm2")
def test_a_tpm_that_cannot_be_cleared(chip: SoftwareTpm) -> None:
    chip.wipe()
    chip.tool("tpm2_clearcontrol", "-C", "l", "s")
    with chip.open() as tpm, pytest.raises(ConflictError) as caught:
        give(tpm)
    assert (caught.value.message, caught.value.hint) == (
        "clearing the TPM is disabled", CLEAR_IT,
    )  # fmt: skip
    chip.tool("tpm2_clearcontrol", "-C", "p", "c")


def test_an_index_of_the_firmware_in_our_place(chip: SoftwareTpm) -> None:
    chip.wipe()
    with chip.open() as tpm:
        public = _define_for_platform(tpm, Index.SUDI_KEY, 8)
        with pytest.raises(TpmError, match="NV_DEFINED"):
            give(tpm)
        assert state(tpm) is State.PARTIAL
        tpm.run(Command.NV_UNDEFINE_SPACE, (PLATFORM, public.handle), b"", (Auth(),))


# -- an interposer -------------------------------------------------------------------------------


def _through(chip: SoftwareTpm, lie: Callable[[bytes, bytes], bytes], **more: bytes) -> str:
    chip.wipe()
    with chip.open(lambda wire: Editor(wire, answer=lie)) as tpm:
        with pytest.raises(MachineError) as caught:
            give(tpm, lockout_auth=more.get("lockout_auth", b""))
    return caught.value.message


def test_one_that_denies_the_clear(chip: SoftwareTpm) -> None:
    failure = bytes.fromhex("80010000000a00000101")

    def lie(command: bytes, answer: bytes) -> bytes:
        return failure if code_of(command) == Command.CLEAR else answer

    for password in (b"", b"x"):
        assert _through(chip, lie, lockout_auth=password) == (
            "the TPM refused CLEAR: TPM_RC_FAILURE (0x101)"
        )


def test_one_that_shows_another_storage_key(chip: SoftwareTpm) -> None:
    """A real one: that of the null hierarchy, well formed and with its right name."""
    foreign: list[StorageKey] = []
    public: list[bytes] = []

    def keep(tpm: Tpm) -> None:
        foreign.append(tpm.create_primary(Hierarchy.NULL))

    chip.wipe()
    made = recorded(chip, keep).answers[-1]
    reader = Reader(made[10:], "")
    reader.take(8)
    public.append(reader.sized())
    answer = sized(public[0]) + sized(foreign[0].name) + sized(foreign[0].name)
    shown = bytes.fromhex("8001") + (10 + len(answer)).to_bytes(4, "big") + bytes(4) + answer

    def lie(command: bytes, real: bytes) -> bytes:
        return shown if code_of(command) == Command.READ_PUBLIC else real

    assert _through(chip, lie) == "the TPM kept another storage root key than it made"


def test_one_that_hides_the_result(chip: SoftwareTpm) -> None:
    no_handles = bytes.fromhex("80010000001300000000000000000100000000")
    done: list[int] = []

    def lie(command: bytes, answer: bytes) -> bytes:
        done.append(code_of(command))
        asked = code_of(command) == Command.GET_CAPABILITY and command[10:14] == bytes((0, 0, 0, 1))
        return no_handles if asked and Command.HIERARCHY_CHANGE_AUTH in done else answer

    chip.wipe()
    with chip.open(lambda wire: Editor(wire, answer=lie)) as tpm:
        with pytest.raises(MachineError) as caught:
            give(tpm)
    assert (caught.value.message, caught.value.hint) == (
        "the TPM did not keep what it was given", "provision it again",
    )  # fmt: skip


# -- what cannot work changes nothing ------------------------------------------------------------

_LIMIT = 2048


@pytest.mark.parametrize(
    ("act", "kind", "message"),
    [
        (
            lambda tpm: give(tpm, sudi_key=b"k" * (_LIMIT + 1)),
            MachineError,
            f"the device identity's key has {_LIMIT + 1} bytes, the TPM holds {_LIMIT} at most",
        ),
        (
            lambda tpm: give(tpm, sudi_cert=b"c" * (_LIMIT + 1)),
            MachineError,
            f"the device identity's certificate has {_LIMIT + 1} bytes, "
            f"the TPM holds {_LIMIT} at most",
        ),
        (
            lambda tpm: give(tpm, sudi_cert=b""),
            UsageError,
            "the device identity's certificate is empty",
        ),
        (lambda tpm: give(tpm, sudi_key=b""), UsageError, "the device identity's key is empty"),
        (
            lambda tpm: give(tpm, policy_version="1"),
            DocumentError,
            "policy version: '1' is not four digits",
        ),
        (
            lambda tpm: give(tpm, luks_policy_key=b"no key"),
            DocumentError,
            "TPM policy key: is not a public key",
        ),
        (
            lambda tpm: give(tpm, admin_policy_key=b"no key"),
            DocumentError,
            "TPM policy key: is not a public key",
        ),
    ],
)
def test_bad_input_changes_nothing(
    chip: SoftwareTpm, act: Callable[[Tpm], object], kind: type[MachineOSError], message: str
) -> None:
    chip.wipe()

    def refused(tpm: Tpm) -> None:
        with pytest.raises(kind) as caught:
            act(tpm)
        assert caught.value.message == message

    bus = recorded(chip, refused)
    assert {code_of(command) for command in bus.commands} <= {Command.GET_CAPABILITY}


def test_as_much_as_the_tpm_holds_is_kept(chip: SoftwareTpm) -> None:
    chip.wipe()
    with chip.open() as tpm:
        assert tpm.property(Property.NV_INDEX_MAX) == _LIMIT
        give(tpm, sudi_cert=b"c" * _LIMIT)
        assert tpm.nv_read_public(Index.SUDI_CERT).size == _LIMIT


def _define_for_platform(tpm: Tpm, index: int, size: int) -> NvPublic:
    attributes = NvAttribute.PPWRITE | NvAttribute.PPREAD | NvAttribute.PLATFORMCREATE
    public = NvPublic(index, attributes, b"", size)
    parameters = sized(b"") + sized(public.marshal())
    tpm.run(Command.NV_DEFINE_SPACE, (PLATFORM,), parameters, (Auth(),))
    return public


def _fill(tpm: Tpm, defined: list[NvPublic]) -> None:
    """Define indexes of the platform, which a clear does not remove, until the TPM refuses."""
    for index in range(0x1400000, 0x1400200):
        defined.append(_define_for_platform(tpm, index, 2048))


def test_a_full_tpm_says_so(chip: SoftwareTpm) -> None:
    chip.wipe()
    defined: list[NvPublic] = []
    with chip.open() as tpm:
        with pytest.raises(TpmError) as caught:
            _fill(tpm, defined)
        assert caught.value.code == Rc.NV_SPACE
        with pytest.raises(
            MachineError, match=r"^the TPM has no room for NV index 0x15000"
        ) as said:
            give(tpm)
        assert said.value.hint == ("delete the NV indexes that the firmware or another system left")
        assert state(tpm) is not State.PROVISIONED
        for public in defined:
            tpm.run(Command.NV_UNDEFINE_SPACE, (PLATFORM, public.handle), b"", (Auth(),))
        assert give(tpm).srk_name
