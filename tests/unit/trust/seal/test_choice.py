"""Which policy a boot fulfils, decided without a TPM."""

from __future__ import annotations

import hashlib

import pytest

from changed import replace
from machineos.errors import PolicyError
from machineos.trust.measure.tpm_policy import (
    FIRST_DOOR,
    Phase,
    SignedPolicy,
    policy_key,
    version_index,
)
from machineos.trust.seal.choice import (
    DOOR,
    DOORS,
    Measured,
    candidates,
    check_raise,
    choose,
    pcrs_of,
    phase_of,
)
from unit.trust.sealing import (
    LUKS,
    NOTHING_MORE,
    OTHER_UKI,
    SECURE_BOOT,
    UKI,
    both,
    measured,
    signed,
)

KEY = policy_key(LUKS)
NAME = version_index(KEY).name
PCRS = {7: measured(SECURE_BOOT), 11: measured(UKI), 12: bytes(32)} | NOTHING_MORE
NOW = Measured(PCRS, "0001", NAME)
NO_POLICY = "this UKI carries no TPM policy signed with the product's key"


def refused(policies: tuple[SignedPolicy, ...], now: Measured = NOW, phase: Phase = "first") -> str:
    with pytest.raises(PolicyError) as caught:
        choose(policies, now, phase)
    return caught.value.message


def boot(**pcrs: bytes) -> Measured:
    return replace(NOW, pcrs=PCRS | {int(name[3:]): value for name, value in pcrs.items()})


def test_the_door_is_the_predecessors_and_ours() -> None:
    assert {pcr: value.hex() for pcr, value in DOOR.items()} == {
        7: "b7135cbb321a66fa848b07288bd008b89bd5b7496c4569c5e1a4efd5f7c8e0a7",
        11: hashlib.sha256(b"machineos-leave-initrd").hexdigest(),
    }
    assert DOORS == {"first": {11: FIRST_DOOR}, "second": DOOR}


# -- candidates ----------------------------------------------------------------------------------


def test_only_what_the_key_signed_for_both_pcrs_is_a_candidate() -> None:
    good, more = signed(), signed(pcr12=bytes(32))
    policies = [
        signed(by="tpmpol-admin"),
        replace(good, pcrs=(7,)),
        good,
        replace(good, pcrs=(11,)),
        more,
    ]
    assert candidates(policies, KEY) == (good, more)


@pytest.mark.parametrize(
    "policies",
    [
        [],
        [signed(by="tpmpol-admin")],
        [replace(signed(), version=None)],
        [replace(signed(), version="")],
        [replace(signed(), pcrs=(7, 12))],
    ],
)
def test_a_uki_without_a_policy_of_ours(policies: list[SignedPolicy]) -> None:
    with pytest.raises(PolicyError) as caught:
        candidates(policies, KEY)
    assert caught.value.message == NO_POLICY


def test_one_policy_with_a_version_is_enough() -> None:
    policies = (replace(signed(), version=None), signed())
    assert candidates(policies, KEY) == policies


def test_every_pcr_that_a_policy_names_is_read() -> None:
    assert pcrs_of([]) == {7, 11}
    assert pcrs_of([signed(), replace(signed(), pcrs=(4, 7, 11, 12))]) == {4, 7, 11, 12}


# -- choosing ------------------------------------------------------------------------------------


def test_the_policy_that_fits_is_chosen() -> None:
    good = signed()
    policies = (signed(uki=OTHER_UKI), good, replace(good, version=None))
    assert choose(policies, NOW, "first") == ("0001", good)
    with_pcr12 = signed(pcr12=bytes(32))
    assert choose((with_pcr12,), NOW, "first") == ("0001", with_pcr12)


def test_of_several_that_fit_the_newest_is_chosen() -> None:
    policies = tuple(signed(version=version) for version in ("0002", "0010", "0009"))
    assert choose(policies, NOW, "first") == ("0010", policies[1])


def test_the_floor_itself_may_boot_and_nothing_below() -> None:
    policy = signed(version="0005")
    assert choose((policy,), replace(NOW, floor="0005"), "first") == ("0005", policy)
    with pytest.raises(PolicyError) as caught:
        choose((policy,), replace(NOW, floor="0006"), "first")
    assert caught.value.message == (
        "this UKI is too old: its policy version is 0005, the TPM accepts 0006 and newer"
    )
    assert caught.value.hint == "boot the newer version"


def test_a_version_that_was_not_signed_for_does_not_fit() -> None:
    assert "version index is not ours" in refused((replace(signed(), version="0009"),))


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (
            boot(pcr7=bytes(32)),
            "PCR 7 is not a value this product signed: Secure Boot state or certificates changed",
        ),
        (
            boot(pcr11=bytes(32)),
            "PCR 11 is not a value this product signed: another UKI, or an altered one",
        ),
        (
            boot(pcr12=b"x" * 32),
            "PCR 12 is not a value this product signed: "
            "something was added to the UKI's command line or files",
        ),
        (
            boot(pcr13=b"x" * 32),
            "PCR 13 is not a value this product signed: a system extension was added to the UKI",
        ),
        (
            boot(pcr14=b"x" * 32),
            "PCR 14 is not a value this product signed: "
            "somebody enrolled a key or a setting of their own in shim (MOK)",
        ),
        (
            boot(pcr7=bytes(32), pcr11=bytes(32)),
            "PCR 7 and PCR 11 are not values this product signed: "
            "Secure Boot state or certificates changed; another UKI, or an altered one",
        ),
        (
            replace(NOW, version_name=b"another index"),
            "the TPM was provisioned for another product: its policy version index is not ours",
        ),
    ],
)
def test_what_does_not_fit_is_named(now: Measured, message: str) -> None:
    assert refused((signed(pcr12=bytes(32), more=NOTHING_MORE),), now) == message


def test_a_pcr_without_a_reason_of_its_own_is_named_too() -> None:
    policy = signed()
    wide = replace(policy, pcrs=(4, 7, 11), values=(b"4" * 32, *policy.values))
    now = replace(NOW, pcrs=PCRS | {4: bytes(32)})
    assert refused((wide,), now) == (
        "PCR 4 is not a value this product signed: something else was measured"
    )


def test_of_several_the_one_with_the_fewest_differences_is_named() -> None:
    far, near = signed(bytes(32), bytes(32)), signed(bytes(32))
    assert refused((far, near)).startswith("PCR 7 is not")
    assert refused((near, far)).startswith("PCR 7 is not")


def test_without_hints_only_that_much_is_known() -> None:
    wanted = "the PCRs are not values this product signed: another UKI or Secure Boot state"
    assert refused((signed(uki=OTHER_UKI, hints=False),)) == wanted
    hinted = (signed(uki=OTHER_UKI, hints=False), signed(uki=OTHER_UKI))
    assert refused(hinted).startswith("PCR 11 is not a value")


def test_after_the_door_both_pcrs_say_so() -> None:
    left = {pcr: hashlib.sha256(PCRS[pcr] + DOOR[pcr]).digest() for pcr in DOOR}
    wanted = "the initrd has been left: the TPM's secrets can be read only inside it"
    both = replace(NOW, pcrs=PCRS | left)
    assert refused((signed(),), both) == wanted
    assert refused((signed(OTHER_UKI), signed()), both) == wanted
    for pcr in DOOR:
        one = replace(NOW, pcrs=PCRS | {pcr: left[pcr]})
        assert refused((signed(),), one).startswith(f"PCR {pcr} is not a value")


# -- the two phases ------------------------------------------------------------------------------

BEHIND = boot(pcr11=hashlib.sha256(PCRS[11] + FIRST_DOOR).digest())
LEFT = "the initrd has been left: the TPM's secrets can be read only inside it"


def test_each_phase_has_its_policy() -> None:
    first, second = both(pcr12=bytes(32))
    assert choose((first, second), NOW, "first") == ("0001", first)
    assert choose((first, second), BEHIND, "second") == ("0001", second)
    assert [phase_of(one) for one in (first, second, replace(first, purpose=None))] == [
        "first", "second", "first",
    ]  # fmt: skip


def test_in_the_wrong_phase_it_says_which_door_was_passed() -> None:
    assert refused(both(), BEHIND, "first") == (
        "the first door is closed: what is sealed for the first phase of a boot can be read only "
        "before it"
    )
    assert refused(both(), NOW, "second") == (
        "the first door is still open: what is sealed for the second phase of a boot can be read "
        "only behind it"
    )


def test_after_the_second_door_both_phases_are_over() -> None:
    for now in (NOW, BEHIND):
        left = {pcr: hashlib.sha256(now.pcrs[pcr] + DOOR[pcr]).digest() for pcr in DOOR}
        gone = replace(now, pcrs=PCRS | left)
        assert refused(both(), gone, "first") == refused(both(), gone, "second") == LEFT


def test_what_does_not_fit_is_named_in_the_second_phase_too() -> None:
    other = replace(BEHIND, pcrs={**BEHIND.pcrs, 12: b"x" * 32})
    assert refused(both(pcr12=bytes(32)), other, "second").startswith("PCR 12 is not a value")
    strange = replace(BEHIND, version_name=b"another index")
    assert "version index is not ours" in refused(both(), strange, "second")
    assert refused((signed(OTHER_UKI),), BEHIND, "second") == (
        "this UKI carries no TPM policy for the second phase of a boot"
    )


# -- the floor -----------------------------------------------------------------------------------


def test_the_floor_only_rises() -> None:
    assert check_raise("0002", present="0001")
    assert not check_raise("0001", present="0001")
    with pytest.raises(PolicyError) as caught:
        check_raise("0001", present="0002")
    assert caught.value.message == "the TPM's policy version is 0002; it is never lowered to 0001"
