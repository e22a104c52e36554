"""Secrets that the TPM gives only to a UKI the product signed, and only inside the initrd.

Owns every read of the sealed secrets and the two doors; ``layout`` says where secrets are and in
which phase each is given out, ``provision`` puts them there, ``choice`` decides which policy fits.
Invariant: a secret comes back only from a salted, encrypted session under a signed policy of its
phase (PCR 7 and 11 at least, not older than the floor); every way to fail is one clear line, and
none of them makes a new secret.
Shared with the initrd: standard library, and cryptography imported where it is needed.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from functools import cached_property, partial
from typing import TYPE_CHECKING

import msgspec

from machineos.core.secret import Secret
from machineos.errors import BootError, PolicyError, TpmError
from machineos.host.tpm.code import Rc
from machineos.host.tpm.session import Auth
from machineos.host.tpm.wire import NvAttribute, Operation, SessionKind, sha256
from machineos.trust.measure.tpm_policy import (
    check_version,
    first_write_policy,
    policy_key,
    policy_ref,
)
from machineos.trust.seal.choice import (
    DOOR,
    DOORS,
    Measured,
    candidates,
    check_raise,
    choose,
    pcrs_of,
)
from machineos.trust.seal.layout import (
    LAYOUT_VERSION,
    PHASES,
    STORAGE_ROOT,
    Index,
    State,
    state,
)
from machineos.trust.seal.provision import Report, provision

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence, Set

    from machineos.host.tpm.session import Session
    from machineos.host.tpm.wire import NvPublic, StorageKey, Ticket
    from machineos.trust.measure.tpm_policy import Phase, PolicyKey, SignedPolicy
    from machineos.trust.seal.chip import Tpm

__all__ = [
    "DOOR",
    "DOORS",
    "Index",
    "Report",
    "Sealed",
    "State",
    "close_door",
    "opened",
    "provision",
    "read_floor",
    "state",
    "unseal",
]

_OPEN_READ = NvAttribute.OWNERREAD | NvAttribute.AUTHREAD | NvAttribute.PPREAD
_UNFULFILLED = frozenset({Rc.POLICY, Rc.POLICY_FAIL, Rc.PCR_CHANGED, Rc.VALUE})
_PROVISION_HINT = "provision this machine again; what it had encrypted cannot be read any more"


class _Proved(msgspec.Struct, frozen=True):
    """The policy of this boot in one phase, with the TPM's word that the key signed it."""

    version: str
    pcrs: tuple[int, ...]
    digest: bytes
    ref: bytes
    ticket: Ticket


class Sealed:
    """The sealed secrets, open for the length of ``opened``'s block, from phase to phase."""

    def __init__(
        self,
        tpm: Tpm,
        session: Session,
        *,
        storage_key: StorageKey,
        key: PolicyKey,
        policies: Sequence[SignedPolicy],
        policy: _Proved,
        phase: Phase,
    ) -> None:
        self._tpm = tpm
        self._session = session
        self._storage_key = storage_key
        self._key = key
        self._policies = policies
        self._proved: dict[Phase, _Proved] = {phase: policy}
        self.version = policy.version
        """The version of the policy that opened this: the UKI's own."""

    @property
    def srk_name(self) -> bytes:
        """The name of the storage key that answers here are authenticated by."""
        return self._storage_key.name

    @cached_property
    def _version_index(self) -> NvPublic:
        return _public(self._tpm, Index.POLICY_VERSION)

    def read(self, index: Index) -> Secret:
        """Return a secret. Raises: BootError, PolicyError."""
        with self._using():
            public = self._guarded(index)
            auth = Auth(self._session, encrypt=True)
            satisfy = partial(self._satisfy, PHASES[index])
            return Secret(self._tpm.nv_read(public, auth, prepare=satisfy))

    def write(self, index: Index, data: Secret) -> None:
        """Replace a secret that is writable by policy. Raises: BootError, PolicyError."""
        with self._using():
            public = self._guarded(index)
            if len(data) != public.size:
                raise PolicyError(f"{_show(index)} has {public.size} bytes, not {len(data)}")
            auth = Auth(self._session, decrypt=True)
            satisfy = partial(self._satisfy, PHASES[index])
            self._tpm.nv_write(public, data.reveal(), auth, prepare=satisfy)

    def floor(self) -> str:
        """Return the oldest policy version that may still boot, on the TPM's own word.

        Raises: BootError, PolicyError.
        """
        with _explained(), self._tpm.session(SessionKind.HMAC, self._storage_key) as session:
            return _floor(self._tpm, Auth(session, encrypt=True))

    def raise_floor(self, version: str) -> None:
        """Refuse from the next boot on every UKI with a policy version older than ``version``.

        In the second phase only. It never lowers, and never goes above the version of the running
        UKI, which would lock itself out. Raises: BootError, PolicyError, DocumentError.
        """
        check_version(version)
        if not check_raise(version, present=self.floor()):
            return
        if version > self.version:
            raise PolicyError(
                f"policy version {version} would lock out this UKI, which has {self.version}"
            )
        self.write_version(version)

    def write_version(self, version: str) -> None:
        """Replace the floor of policy versions. Raises: BootError, PolicyError."""
        with self._using():
            public = _public(self._tpm, Index.POLICY_VERSION)
            auth = Auth(self._session, decrypt=True)
            self._tpm.nv_write(public, version.encode(), auth, prepare=self._satisfy_version)

    def close_door(self, phase: Phase) -> None:
        """End a phase, on the word of the TPM that gave the secrets out; see ``close_door``.

        Raises: BootError.
        """
        with _explained(), self._tpm.session(SessionKind.HMAC, self._storage_key) as session:
            _extend(self._tpm, session, DOORS[phase])

    def _guarded(self, index: Index) -> NvPublic:
        """Return the index's public area, if it is as provisioning leaves it."""
        public = _public(self._tpm, index)
        if public.policy != self._key.policy(PHASES[index]):
            raise PolicyError(f"{_show(index)} was sealed for another product's key")
        if public.attributes & _OPEN_READ or NvAttribute.POLICYREAD not in public.attributes:
            raise PolicyError(f"{_show(index)} can be read without a policy: not sealed by us")
        return public

    def _satisfy(self, phase: Phase) -> None:
        """Make the session fulfil the signed policy; the TPM forgets that after each use.

        What was proved once is asked of the TPM again, not of us: behind a door it is the TPM that
        refuses.
        """
        tpm, session = self._tpm, self._session
        if phase not in self._proved:
            self._proved[phase] = _prove(tpm, self._policies, self._key, phase)
        policy = self._proved[phase]
        tpm.policy_pcr(session, *policy.pcrs)
        tpm.policy_nv(session, self._version_index, policy.version.encode(), Operation.UNSIGNED_LE)
        tpm.policy_authorize(session, policy.digest, self._key.name, policy.ticket, policy.ref)

    def _satisfy_version(self) -> None:
        phase = PHASES[Index.POLICY_VERSION]
        self._satisfy(phase)
        branches = (self._key.policy(phase), first_write_policy())
        self._tpm.policy_or(self._session, branches)

    @contextmanager
    def _using(self) -> Iterator[None]:
        """Use the session; after a refusal it begins anew, else what it holds would stay in it."""
        with _explained():
            try:
                yield
            except TpmError:
                with suppress(TpmError):
                    self._tpm.policy_restart(self._session)
                raise


@contextmanager
def opened(
    tpm: Tpm,
    *,
    policies: Sequence[SignedPolicy],
    policy_key_pem: bytes,
    srk_name: bytes | None = None,
    phase: Phase = "first",
) -> Iterator[Sealed]:
    """Open the sealed secrets with the one of ``policies`` that fits this boot, now in ``phase``.

    ``srk_name`` pins the TPM's storage key; without it a device between processor and TPM that
    plays a TPM of its own is not noticed.

    Raises: BootError when the TPM cannot do it (none, not provisioned, locked), PolicyError when
    this boot is not one the product signed, DocumentError for a bad key.
    """
    key = policy_key(policy_key_pem)
    with _explained():
        storage_key = _storage_key(tpm, srk_name)
        policy = _prove(tpm, policies, key, phase)
    with _explained(), tpm.session(SessionKind.POLICY, storage_key) as session:
        yield Sealed(
            tpm,
            session,
            storage_key=storage_key,
            key=key,
            policies=policies,
            policy=policy,
            phase=phase,
        )


def unseal(
    tpm: Tpm,
    index: int,
    *,
    policies: Sequence[SignedPolicy],
    policy_key_pem: bytes,
    srk_name: bytes | None = None,
) -> Secret:
    """Return one secret; see ``opened``, which is quicker for several.

    Raises: BootError, PolicyError, DocumentError.
    """
    with opened(
        tpm,
        policies=policies,
        policy_key_pem=policy_key_pem,
        srk_name=srk_name,
        phase=PHASES[Index(index)],
    ) as sealed:
        return sealed.read(Index(index))


def read_floor(tpm: Tpm, *, srk_name: bytes | None = None) -> str:
    """Return the oldest policy version that may still boot, on the TPM's own word.

    Raises: BootError, PolicyError.
    """
    with _explained():
        storage_key = _storage_key(tpm, srk_name)
        with tpm.session(SessionKind.HMAC, storage_key) as session:
            return _floor(tpm, Auth(session, encrypt=True))


def close_door(tpm: Tpm, phase: Phase, *, srk_name: bytes | None = None) -> None:
    """End a phase of the boot, and make sure of it: what the TPM gives out in it stays unreadable
    until the next reset; behind the second door that is everything.

    The TPM's own word is asked for. A TPM without a storage key holds nothing of ours, so there is
    no door to close, and what says so may sit between it and us. Raises: BootError when the door
    may still be open.
    """
    with _explained():
        storage_key = _storage_key(tpm, srk_name)
        with tpm.session(SessionKind.HMAC, storage_key) as session:
            _extend(tpm, session, DOORS[phase])


def _extend(tpm: Tpm, session: Session, door: Mapping[int, bytes]) -> None:
    reading = Auth(session, audit=True)
    before = _pcrs(tpm, door.keys(), reading)
    for pcr, constant in door.items():
        tpm.pcr_extend(pcr, constant, Auth(session))
    after = _pcrs(tpm, door.keys(), reading)
    for pcr, constant in door.items():
        if after[pcr] != sha256(before[pcr], constant):
            raise BootError(f"PCR {pcr} did not change: the TPM's secrets are still readable")


def _pcrs(tpm: Tpm, wanted: Set[int], auth: Auth | None = None) -> dict[int, bytes]:
    values = tpm.pcr_read(*wanted, auth=auth)
    if set(values) != wanted:
        raise BootError(
            "the TPM has no SHA-256 bank of PCRs", hint="switch SHA-256 on in the firmware setup"
        )
    return values


def _storage_key(tpm: Tpm, srk_name: bytes | None) -> StorageKey:
    try:
        key = tpm.read_storage_key(STORAGE_ROOT)
    except TpmError as error:
        if error.code != Rc.HANDLE:
            raise
        raise BootError(
            "the TPM is not provisioned, or was cleared: it has no storage root key",
            hint=_PROVISION_HINT,
        ) from error
    if srk_name is not None and key.name != srk_name:
        raise BootError(
            "the TPM is not the one this machine was provisioned with: another storage root key",
            hint="the TPM was cleared or exchanged, or something sits between it and the processor",
        )
    return key


def _public(tpm: Tpm, index: Index) -> NvPublic:
    try:
        public = tpm.nv_read_public(index)
    except TpmError as error:
        if error.code != Rc.HANDLE:
            raise
        raise BootError(
            f"the TPM is not provisioned: it has no {_show(index)}", hint=_PROVISION_HINT
        ) from error
    if NvAttribute.WRITTEN not in public.attributes:
        raise BootError(
            f"the TPM is only half provisioned: {_show(index)} is empty", hint=_PROVISION_HINT
        )
    return public


def _floor(tpm: Tpm, auth: Auth) -> str:
    text = tpm.nv_read(_public(tpm, Index.POLICY_VERSION), auth)
    if len(text) != 4 or not text.isdigit():
        raise BootError("the policy version in the TPM is not four digits", hint=_PROVISION_HINT)
    return text.decode("ascii")


def _prove(tpm: Tpm, policies: Sequence[SignedPolicy], key: PolicyKey, phase: Phase) -> _Proved:
    """Return the policy that this boot fulfils now. Raises: BootError, PolicyError, TpmError."""
    version, policy = _choose(tpm, policies, key, phase)
    ref = policy_ref(phase)
    loaded = tpm.load_external(key.public)
    try:
        ticket = tpm.verify_signature(loaded, sha256(policy.policy, ref), policy.signature)
    finally:
        tpm.flush(loaded.value)
    return _Proved(version, policy.pcrs, policy.policy, ref, ticket)


def _choose(
    tpm: Tpm, policies: Sequence[SignedPolicy], key: PolicyKey, phase: Phase
) -> tuple[str, SignedPolicy]:
    """Return the policy that this boot fulfils now. Raises: BootError, PolicyError."""
    ours = candidates(policies, key)
    now = _pcrs(tpm, pcrs_of(ours))
    floor = _floor(tpm, Auth())
    name = _public(tpm, Index.POLICY_VERSION).name
    try:
        return choose(ours, Measured(now, floor, name), phase)
    except PolicyError:
        _refuse_other_layout(tpm)
        raise


def _refuse_other_layout(tpm: Tpm) -> None:
    """Say so if that is why nothing fits. Raises: BootError."""
    layout = tpm.nv_read(_public(tpm, Index.LAYOUT))
    if layout != LAYOUT_VERSION:
        shown = layout.decode("ascii", "replace")
        raise BootError(
            f"the TPM is {State.FOREIGN.value}: its layout is {shown!r}, this image knows "
            f"{LAYOUT_VERSION.decode()!r}",
            hint=_PROVISION_HINT,
        )


def _show(index: Index) -> str:
    return f"{index.name.lower().replace('_', ' ')} (NV 0x{index:x})"


@contextmanager
def _explained() -> Iterator[None]:
    """Turn the TPM's refusals into one line that says what they mean here."""
    try:
        yield
    except TpmError as error:
        if error.code == Rc.SIGNATURE:
            raise PolicyError("the signature of this UKI's TPM policy is wrong") from error
        if error.code == Rc.LOCKOUT:
            raise BootError(
                "the TPM is locked after too many wrong passwords",
                hint="leave the machine on for ten minutes for each try, then start it again",
            ) from error
        if error.code in _UNFULFILLED:
            raise PolicyError(f"this boot does not fulfil its signed policy: {error}") from error
        raise BootError(error.message, hint=error.hint) from error
