"""Which signed policy this boot fulfils now, and what is wrong when none does.

Pure: what the TPM said goes in. Invariant: the policy that is returned is one that the key signed
for these PCRs, and it is not older than the floor. The TPM checks the same again, and the phase too
(``tpm_policy.policy_ref``).
Shared with the initrd: standard library, and cryptography imported where it is needed.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from machineos.errors import PolicyError
from machineos.host.tpm.wire import sha256
from machineos.trust.measure.tpm_policy import BOOT_PCRS, FIRST_DOOR, boot_policy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from machineos.trust.measure.tpm_policy import Phase, PolicyKey, SignedPolicy

# What leaving the initrd extends. The one for PCR 7 is the predecessor's.
DOOR: Mapping[int, bytes] = {
    7: hashlib.sha256(b"atomix\n").digest(),
    11: hashlib.sha256(b"machineos-leave-initrd").digest(),
}
# What each phase ends with.
DOORS: Mapping[Phase, Mapping[int, bytes]] = {"first": {11: FIRST_DOOR}, "second": DOOR}
_ELSEWHERE: Mapping[Phase, str] = {
    "first": "the first door is closed: what is sealed for the first phase of a boot can be read "
    "only before it",
    "second": "the first door is still open: what is sealed for the second phase of a boot can be "
    "read only behind it",
}
_REASONS = {
    7: "Secure Boot state or certificates changed",
    11: "another UKI, or an altered one",
    12: "something was added to the UKI's command line or files",
    13: "a system extension was added to the UKI",
    14: "somebody enrolled a key or a setting of their own in shim (MOK)",
}


class Measured(msgspec.Struct, frozen=True):
    """What the TPM says of this boot: SHA-256 PCRs by number, the floor, and its index's name."""

    pcrs: Mapping[int, bytes]
    floor: str
    version_name: bytes


def candidates(policies: Sequence[SignedPolicy], key: PolicyKey) -> tuple[SignedPolicy, ...]:
    """Return the policies that ``key`` signed and that hold a boot down, in their order.

    Raises: PolicyError when there is none with a version.
    """
    ours = tuple(
        policy
        for policy in policies
        if policy.fingerprint == key.fingerprint and set(BOOT_PCRS) <= set(policy.pcrs)
    )
    if not any(policy.version for policy in ours):
        raise PolicyError("this UKI carries no TPM policy signed with the product's key")
    return ours


def pcrs_of(policies: Sequence[SignedPolicy]) -> frozenset[int]:
    """Return every PCR that has to be read to choose among ``policies``."""
    return frozenset(BOOT_PCRS).union(*(policy.pcrs for policy in policies))


def phase_of(policy: SignedPolicy) -> Phase:
    """Return the phase that a policy says it is for; one that says nothing is for the first."""
    return "second" if policy.purpose == "second" else "first"


def choose(
    policies: Sequence[SignedPolicy], measured: Measured, phase: Phase
) -> tuple[str, SignedPolicy]:
    """Return the newest of ``policies`` (from ``candidates``) that this boot fulfils in ``phase``,
    with its version.

    Raises: PolicyError when the PCRs fit none, or what fits is below the floor.
    """
    fitting = {
        policy.version: policy
        for policy in policies
        if policy.version and phase_of(policy) == phase and _fits(policy, policy.version, measured)
    }
    if not fitting:
        raise PolicyError(_difference(policies, measured.pcrs, phase))
    newest = max(fitting)
    if newest < measured.floor:
        raise PolicyError(
            f"this UKI is too old: its policy version is {newest}, the TPM accepts "
            f"{measured.floor} and newer",
            hint="boot the newer version",
        )
    return newest, fitting[newest]


def check_raise(version: str, *, present: str) -> bool:
    """Return whether the floor has to be written to become ``version``.

    Raises: PolicyError when that would lower it.
    """
    if version < present:
        raise PolicyError(
            f"the TPM's policy version is {present}; it is never lowered to {version}"
        )
    return version != present


def _fits(policy: SignedPolicy, version: str, measured: Measured) -> bool:
    values = {pcr: measured.pcrs[pcr] for pcr in policy.pcrs}
    return boot_policy(values, version, measured.version_name) == policy.policy


def _difference(policies: Sequence[SignedPolicy], now: Mapping[int, bytes], phase: Phase) -> str:
    """Return which PCRs are not as signed, as far as the policies say what they expected."""
    here = _expected(policies, phase)
    there = _expected(policies, "first" if phase == "second" else "second")
    if not here and not there:
        return "the PCRs are not values this product signed: another UKI or Secure Boot state"
    if any(_left(want, now) for want in (*here, *there)):
        return "the initrd has been left: the TPM's secrets can be read only inside it"
    if _matches(there, now) and not _matches(here, now):
        return _ELSEWHERE[phase]
    if not here:
        return f"this UKI carries no TPM policy for the {phase} phase of a boot"
    return _blame(min((_changed(want, now) for want in here), key=len))


def _expected(policies: Sequence[SignedPolicy], phase: Phase) -> list[dict[int, bytes]]:
    """Return what the PCRs were expected to be in a phase, of those policies that say it."""
    return [
        dict(zip(policy.pcrs, policy.values, strict=True))
        for policy in policies
        if policy.values and phase_of(policy) == phase
    ]


def _matches(wanted: Sequence[Mapping[int, bytes]], now: Mapping[int, bytes]) -> bool:
    return any(not _changed(want, now) for want in wanted)


def _changed(want: Mapping[int, bytes], now: Mapping[int, bytes]) -> list[int]:
    return [pcr for pcr in want if now[pcr] != want[pcr]]


def _blame(wrong: Sequence[int]) -> str:
    if not wrong:
        return "the TPM was provisioned for another product: its policy version index is not ours"
    names = " and ".join(f"PCR {pcr}" for pcr in wrong)
    verb = "is not a value" if len(wrong) == 1 else "are not values"
    reasons = "; ".join(_REASONS.get(pcr, "something else was measured") for pcr in wrong)
    return f"{names} {verb} this product signed: {reasons}"


def _left(want: Mapping[int, bytes], now: Mapping[int, bytes]) -> bool:
    """Whether the PCRs are as wanted, and then extended by the door that the initrd is left by."""
    return all(now[pcr] == sha256(want[pcr], DOOR[pcr]) for pcr in DOOR)
