"""Secrets that the TPM gives only to a UKI the product signed, and only inside the initrd.

Owns every read of the sealed secrets; ``layout`` says where they are, ``provision`` puts them
there, ``choice`` decides which policy fits. Invariant: a secret comes back only from a salted,
encrypted session under a signed policy (PCR 7 and 11 at least, not older than the floor); every way
to fail is one clear line, and none of them makes a new secret.
Shared with the initrd: standard library, and cryptography imported where it is needed.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from machineos.core.secret import Secret
from machineos.errors import BootError, PolicyError, TpmError
from machineos.host.tpm.code import Rc
from machineos.host.tpm.session import Auth
from machineos.host.tpm.wire import NvAttribute, Operation, SessionKind, sha256
from machineos.trust.measure.tpm_policy import (
    check_version,
    first_write_policy,
    policy_key,
)
from machineos.trust.seal.choice import DOOR, Measured, candidates, check_raise, choose, pcrs_of
from machineos.trust.seal.layout import STORAGE_ROOT, Index, State, state
from machineos.trust.seal.provision import Report, provision

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence, Set

    from machineos.host.tpm.session import Session
    from machineos.host.tpm.wire import NvPublic, StorageKey, Ticket
    from machineos.trust.measure.tpm_policy import PolicyKey, SignedPolicy
    from machineos.trust.seal.chip import Tpm

__all__ = [
    "DOOR",
    "Index",
    "Report",
    "Sealed",
    "State",
    "close_door",
    "opened",
    "provision",
    "raise_floor",
    "read_floor",
    "state",
    "unseal",
]

_OPEN_READ = NvAttribute.OWNERREAD | NvAttribute.AUTHREAD | NvAttribute.PPREAD
_UNFULFILLED = frozenset({Rc.POLICY, Rc.POLICY_FAIL, Rc.PCR_CHANGED, Rc.VALUE})
_PROVISION_HINT = "provision this machine again; what it had encrypted cannot be read any more"


@dataclass(frozen=True, slots=True)
class _Proved:
    """The policy of this boot, with the TPM's word that the key signed it."""

    version: str
    pcrs: tuple[int, ...]
    digest: bytes
    ticket: Ticket


class Sealed:
    """The sealed secrets, open for the length of ``opened``'s block."""

    def __init__(self, tpm: Tpm, session: Session, key: PolicyKey, policy: _Proved) -> None:
        self._tpm = tpm
        self._session = session
        self._key = key
        self._policy = policy
        self.version = policy.version
        """The version of the policy that opened this: the UKI's own."""

    @cached_property
    def _version_index(self) -> NvPublic:
        return _public(self._tpm, Index.POLICY_VERSION)

    def read(self, index: Index) -> Secret:
        """Return a secret. Raises: BootError, PolicyError."""
        with _explained():
            public = self._guarded(index)
            auth = Auth(self._session, encrypt=True)
            return Secret(self._tpm.nv_read(public, auth, prepare=self._satisfy))

    def write(self, index: Index, data: Secret) -> None:
        """Replace a secret that is writable by policy. Raises: BootError, PolicyError."""
        with _explained():
            public = self._guarded(index)
            if len(data) != public.size:
                raise PolicyError(f"{_show(index)} has {public.size} bytes, not {len(data)}")
            auth = Auth(self._session, decrypt=True)
            self._tpm.nv_write(public, data.reveal(), auth, prepare=self._satisfy)

    def write_version(self, version: str) -> None:
        """Replace the floor of policy versions. Raises: BootError, PolicyError."""
        with _explained():
            public = _public(self._tpm, Index.POLICY_VERSION)
            auth = Auth(self._session, decrypt=True)
            self._tpm.nv_write(public, version.encode(), auth, prepare=self._satisfy_version)

    def _guarded(self, index: Index) -> NvPublic:
        """Return the index's public area, if it is as provisioning leaves it."""
        public = _public(self._tpm, index)
        if public.policy != self._key.policy:
            raise PolicyError(f"{_show(index)} was sealed for another product's key")
        if public.attributes & _OPEN_READ or NvAttribute.POLICYREAD not in public.attributes:
            raise PolicyError(f"{_show(index)} can be read without a policy: not sealed by us")
        return public

    def _satisfy(self) -> None:
        """Make the session fulfil the signed policy; the TPM forgets that after each use."""
        tpm, session = self._tpm, self._session
        tpm.policy_pcr(session, *self._policy.pcrs)
        tpm.policy_nv(session, self._version_index, self.version.encode(), Operation.UNSIGNED_LE)
        tpm.policy_authorize(session, self._policy.digest, self._key.name, self._policy.ticket)

    def _satisfy_version(self) -> None:
        self._satisfy()
        self._tpm.policy_or(self._session, (self._key.policy, first_write_policy()))


@contextmanager
def opened(
    tpm: Tpm,
    *,
    policies: Sequence[SignedPolicy],
    policy_key_pem: bytes,
    srk_name: bytes | None = None,
) -> Iterator[Sealed]:
    """Open the sealed secrets with the one of ``policies`` that fits this boot.

    ``srk_name`` pins the TPM's storage key; without it a device between processor and TPM that
    plays a TPM of its own is not noticed.

    Raises: BootError when the TPM cannot do it (none, not provisioned, locked), PolicyError when
    this boot is not one the product signed, DocumentError for a bad key.
    """
    key = policy_key(policy_key_pem)
    with _explained():
        storage_key = _storage_key(tpm, srk_name)
        version, policy = _choose(tpm, policies, key)
        loaded = tpm.load_external(key.public)
        try:
            ticket = tpm.verify_signature(loaded, sha256(policy.policy), policy.signature)
        finally:
            tpm.flush(loaded.value)
    with _explained(), tpm.session(SessionKind.POLICY, storage_key) as session:
        proved = _Proved(version, policy.pcrs, policy.policy, ticket)
        yield Sealed(tpm, session, key, proved)


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
    with opened(tpm, policies=policies, policy_key_pem=policy_key_pem, srk_name=srk_name) as sealed:
        return sealed.read(Index(index))


def read_floor(tpm: Tpm, *, srk_name: bytes | None = None) -> str:
    """Return the oldest policy version that may still boot, on the TPM's own word.

    Raises: BootError, PolicyError.
    """
    with _explained():
        storage_key = _storage_key(tpm, srk_name)
        with tpm.session(SessionKind.HMAC, storage_key) as session:
            return _floor(tpm, Auth(session, encrypt=True))


def raise_floor(
    tpm: Tpm,
    version: str,
    *,
    policies: Sequence[SignedPolicy],
    policy_key_pem: bytes,
    srk_name: bytes | None = None,
) -> None:
    """Refuse from now on every UKI with a policy version older than ``version``.

    Only inside the initrd (it needs the luks policy). It never lowers, and never goes above the
    version of the running UKI, which would lock itself out.
    Raises: BootError, PolicyError, DocumentError.
    """
    check_version(version)
    present = read_floor(tpm, srk_name=srk_name)
    if not check_raise(version, present=present):
        return
    with opened(tpm, policies=policies, policy_key_pem=policy_key_pem, srk_name=srk_name) as sealed:
        if version > sealed.version:
            raise PolicyError(
                f"policy version {version} would lock out this UKI, which has {sealed.version}"
            )
        sealed.write_version(version)


def close_door(tpm: Tpm, *, srk_name: bytes | None = None) -> None:
    """Make every secret unreadable until the next reset, and make sure of it.

    In a provisioned TPM the TPM's own word is asked for; else (install media) a plain answer has
    to do. Raises: BootError when the door may still be open.
    """
    with _explained():
        try:
            storage_key = _storage_key(tpm, srk_name)
        except BootError:
            if srk_name is not None:
                raise
            _extend(tpm, None)
            return
        with tpm.session(SessionKind.HMAC, storage_key) as session:
            _extend(tpm, session)


def _extend(tpm: Tpm, session: Session | None) -> None:
    reading = Auth(session, audit=True) if session else None
    before = _pcrs(tpm, DOOR.keys(), reading)
    for pcr, constant in DOOR.items():
        tpm.pcr_extend(pcr, constant, Auth(session))
    after = _pcrs(tpm, DOOR.keys(), reading)
    for pcr, constant in DOOR.items():
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


def _choose(tpm: Tpm, policies: Sequence[SignedPolicy], key: PolicyKey) -> tuple[str, SignedPolicy]:
    """Return the policy that this boot fulfils. Raises: BootError, PolicyError."""
    ours = candidates(policies, key)
    now = _pcrs(tpm, pcrs_of(ours))
    floor = _floor(tpm, Auth())
    name = _public(tpm, Index.POLICY_VERSION).name
    return choose(ours, Measured(now, floor, name))


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
