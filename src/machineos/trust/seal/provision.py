"""Gives a TPM its identity, its keys and its passwords, once.

Invariant: until the very last command the lockout hierarchy has no password, so a run that was
interrupted anywhere is repaired by running again (which clears); that last command sets it, and
with it the TPM counts as provisioned (``layout.state``). The layout version is written just
before: were it written after, a power cut between the two would leave a TPM that nobody can clear.
No secret ever crosses the bus in clear, and none is returned: each is a ``Secret`` until the
command that takes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from machineos.core.secret import Secret
from machineos.errors import ConflictError, MachineError, TpmError, UsageError
from machineos.host.tpm.code import Rc
from machineos.host.tpm.session import Auth, Session
from machineos.host.tpm.wire import (
    ALG_SHA256,
    Command,
    Handle,
    Hierarchy,
    NvAttribute,
    NvPublic,
    Permanent,
    Property,
    SessionKind,
    StorageKey,
    sha256,
)
from machineos.trust.measure.tpm_policy import (
    BOOT_PCRS,
    PolicyKey,
    check_version,
    first_write_policy,
    policy_key,
    version_index,
)
from machineos.trust.seal.layout import LAYOUT_VERSION, PHASES, STORAGE_ROOT, Index, State, state

if TYPE_CHECKING:
    from collections.abc import Callable

    from machineos.trust.seal.chip import Tpm

KEY_SIZE = 32
# The lockout stays on. None of our own indexes or keys counts wrong guesses (NO_DA), so a boot
# does not depend on it; it guards what a user adds, and the lockout password itself.
MAX_TRIES = 32
RECOVERY_SECONDS = 600
LOCKOUT_RECOVERY_SECONDS = 86400
_SECRET = NvAttribute.OWNERWRITE | NvAttribute.POLICYREAD | NvAttribute.NO_DA
_LAYOUT = NvAttribute.OWNERWRITE | NvAttribute.AUTHREAD | NvAttribute.NO_DA
_OWNER = Handle.of(Hierarchy.OWNER)


class Report(msgspec.Struct, frozen=True):
    """What provisioning did: the name of the storage root key, to be pinned, and the versions."""

    srk_name: bytes
    policy_version: str
    layout_version: str


class _Item(msgspec.Struct, frozen=True):
    public: NvPublic
    data: Secret


def provision(
    tpm: Tpm,
    *,
    luks_policy_key: bytes,
    admin_policy_key: bytes,
    sudi_cert: bytes,
    sudi_key: Secret,
    random: Callable[[int], bytes],
    policy_version: str = "0001",
    again: bool = False,
    lockout_auth: Secret | None = None,
) -> Report:
    """Clear ``tpm`` and give it everything that a machine needs to boot.

    The policy keys are PEM public keys (tpmpol-luks, tpmpol-admin). ``random`` is mixed with the
    TPM's own. A provisioned TPM is left alone unless ``again``, which needs ``lockout_auth``, its
    admin password.

    Raises: ConflictError (provisioned already, or owned by somebody), MachineError (the TPM cannot
    do it; nothing is changed if it can be known before), DocumentError for bad keys or version.
    """
    luks, admin = policy_key(luks_policy_key), policy_key(admin_policy_key)
    check_version(policy_version)
    _check(tpm, sudi_cert, sudi_key)
    _refuse_owned(tpm, again=again, lockout_auth=lockout_auth)
    _clear(tpm, lockout_auth)

    def fresh(count: int) -> Secret:
        return Secret(sha256(random(KEY_SIZE), tpm.get_random(KEY_SIZE))[:count])

    password = Secret(b"trust-" + fresh(13).reveal().hex().encode())
    items = _items(luks, admin, sudi_cert, sudi_key, password, fresh)
    storage_key = _make_storage_key(tpm)
    with tpm.session(SessionKind.HMAC, storage_key) as session:
        tpm.dictionary_attack_parameters(
            MAX_TRIES, RECOVERY_SECONDS, LOCKOUT_RECOVERY_SECONDS, Auth(session)
        )
        for item in items:
            _store(tpm, item, Auth(session, decrypt=True))
        _store_version(tpm, luks, policy_version, session, storage_key)
        empty = Auth(session, decrypt=True)
        tpm.hierarchy_change_auth(Hierarchy.ENDORSEMENT, password.reveal(), empty)
        tpm.hierarchy_change_auth(Hierarchy.OWNER, password.reveal(), empty)
        layout = NvPublic(Index.LAYOUT, _LAYOUT, b"", len(LAYOUT_VERSION))
        owner = Auth(session, password.reveal(), decrypt=True)
        _store(tpm, _Item(layout, Secret(LAYOUT_VERSION)), owner)
        tpm.hierarchy_change_auth(Hierarchy.LOCKOUT, password.reveal(), empty)
    if state(tpm) is not State.PROVISIONED:
        raise MachineError("the TPM did not keep what it was given", hint="provision it again")
    return Report(storage_key.name, policy_version, LAYOUT_VERSION.decode())


def _check(tpm: Tpm, sudi_cert: bytes, sudi_key: Secret) -> None:
    """Refuse what cannot work before anything is changed."""
    if not set(BOOT_PCRS) <= tpm.pcr_banks().get(ALG_SHA256, frozenset()):
        raise MachineError(
            "the TPM has no SHA-256 bank of PCRs", hint="switch SHA-256 on in the firmware setup"
        )
    limit = tpm.property(Property.NV_INDEX_MAX)
    for name, size in (("certificate", len(sudi_cert)), ("key", len(sudi_key))):
        if not size:
            raise UsageError(f"the device identity's {name} is empty")
        if size > limit:
            raise MachineError(
                f"the device identity's {name} has {size} bytes, the TPM holds {limit} at most"
            )


def _refuse_owned(tpm: Tpm, *, again: bool, lockout_auth: Secret | None) -> None:
    found = state(tpm)
    if found in {State.PROVISIONED, State.FOREIGN} and not again:
        raise ConflictError(
            f"the TPM is {found.value} already", hint="say explicitly that it is to be done again"
        )
    flags = Permanent(tpm.property(Property.PERMANENT))
    # A wrong try would lock the lockout hierarchy for a day, so it is not tried.
    if Permanent.LOCKOUT_AUTH_SET in flags and not lockout_auth:
        raise ConflictError(
            "the TPM has an owner: its lockout password is set",
            hint="give its admin password, or clear the TPM in the firmware setup",
        )
    if Permanent.DISABLE_CLEAR in flags:
        raise ConflictError(
            "clearing the TPM is disabled", hint="clear the TPM in the firmware setup"
        )


def _clear(tpm: Tpm, lockout_auth: Secret | None) -> None:
    if not lockout_auth:
        tpm.clear(Hierarchy.LOCKOUT)
        return
    # The null hierarchy never has a password: its key salts a session before we own anything.
    key = tpm.create_primary(Hierarchy.NULL)
    try:
        with tpm.session(SessionKind.HMAC, key) as session:
            tpm.clear(Hierarchy.LOCKOUT, Auth(session, lockout_auth.reveal(), new_value=b""))
    except TpmError as error:
        if error.code in {Rc.AUTH_FAIL, Rc.BAD_AUTH, Rc.LOCKOUT}:
            raise ConflictError(
                "the admin password of the TPM is wrong, or it is locked",
                hint="clear the TPM in the firmware setup",
            ) from error
        raise
    finally:
        tpm.flush(key.handle.value)


def _make_storage_key(tpm: Tpm) -> StorageKey:
    """Return the owner's storage root key, which stays when the power goes."""
    key = tpm.create_primary(Hierarchy.OWNER)
    try:
        tpm.evict_control(key, STORAGE_ROOT)
    finally:
        tpm.flush(key.handle.value)
    kept = tpm.read_storage_key(STORAGE_ROOT)
    if kept.name != key.name:
        raise MachineError("the TPM kept another storage root key than it made")
    return kept


def _items(
    luks: PolicyKey,
    admin: PolicyKey,
    sudi_cert: bytes,
    sudi_key: Secret,
    password: Secret,
    fresh: Callable[[int], Secret],
) -> list[_Item]:
    # The configuration key alone may be replaced under the policy (a reset makes a new one).
    replaceable = _SECRET | NvAttribute.POLICYWRITE
    rows = (
        (Index.ADMIN_PASSWORD, _SECRET, admin, password),
        (Index.SUDI_CERT, _SECRET, luks, Secret(sudi_cert)),
        (Index.SUDI_KEY, _SECRET, luks, sudi_key),
        (Index.STORAGE_KEY, _SECRET, luks, fresh(KEY_SIZE)),
        (Index.CONFIGURATION_KEY, replaceable, luks, fresh(KEY_SIZE)),
    )
    return [
        _Item(NvPublic(index, attributes, key.policy(PHASES[index]), len(data)), data)
        for index, attributes, key, data in rows
    ]


def _store(tpm: Tpm, item: _Item, auth: Auth) -> None:
    try:
        tpm.nv_define(item.public, auth)
    except TpmError as error:
        if error.code == Rc.NV_SPACE:
            raise MachineError(
                f"the TPM has no room for NV index 0x{item.public.index:x}",
                hint="delete the NV indexes that the firmware or another system left",
            ) from error
        raise
    tpm.nv_write(item.public, item.data.reveal(), auth, by=_OWNER)


def _store_version(
    tpm: Tpm, luks: PolicyKey, version: str, session: Session, storage_key: StorageKey
) -> None:
    """Define the version index and write it under the one policy for a first write."""
    written = version_index(luks)
    attributes = written.attributes & ~NvAttribute.WRITTEN
    public = NvPublic(written.index, attributes, written.policy, written.size)
    tpm.nv_define(public, Auth(session))
    with tpm.session(SessionKind.POLICY, storage_key) as first:
        tpm.policy_nv_written(first, written=False)
        tpm.policy_command_code(first, Command.NV_WRITE)
        tpm.policy_or(first, (luks.policy(PHASES[Index.POLICY_VERSION]), first_write_policy()))
        tpm.nv_write(public, version.encode(), Auth(first, decrypt=True))
