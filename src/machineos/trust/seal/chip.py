"""What sealing asks of a TPM 2.0: the commands, as a protocol.

``host.tpm.commands.Tpm`` speaks them to a real one. Every method raises TpmError with the TPM's
return code; what each does is said there.
Shared with the initrd: standard library only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from machineos.host.tpm.session import Auth, Session
    from machineos.host.tpm.wire import (
        Command,
        Handle,
        Hierarchy,
        NvPublic,
        Operation,
        Property,
        SessionKind,
        StorageKey,
        Ticket,
    )


class Tpm(Protocol):
    """A TPM that is spoken to one command at a time."""

    # -- what it is --

    def handles(self, first: int) -> tuple[int, ...]:
        """Return the handles from ``first`` to the end of its kind."""

    def properties(self, first: Property, count: int = 1) -> dict[int, int]:
        """Return up to ``count`` properties from ``first`` on, by number."""

    def property(self, wanted: Property) -> int:
        """Return one property."""

    def pcr_banks(self) -> dict[int, frozenset[int]]:
        """Return the PCRs that exist, by hash algorithm."""

    def get_random(self, count: int) -> bytes:
        """Return ``count`` random bytes, at most 32."""

    # -- platform configuration registers --

    def pcr_read(self, *pcrs: int, auth: Auth | None = None) -> dict[int, bytes]:
        """Return SHA-256 PCRs by number; with an audit session for ``auth``, on the TPM's word."""

    def pcr_extend(self, pcr: int, digest: bytes, auth: Auth = ...) -> None:
        """Extend the SHA-256 value of ``pcr``."""

    # -- keys and sessions --

    def create_primary(self, hierarchy: Hierarchy, auth: Auth = ...) -> StorageKey:
        """Return the hierarchy's storage root key, loaded."""

    def evict_control(self, key: StorageKey, persistent: int, auth: Auth = ...) -> None:
        """Make a loaded key of the owner stay at ``persistent``."""

    def read_storage_key(self, value: int) -> StorageKey:
        """Return the storage key at a handle; code HANDLE when there is none."""

    def flush(self, handle: int) -> None:
        """Drop a loaded key or a session."""

    def load_external(self, public: bytes) -> Handle:
        """Load a public key (TPMT_PUBLIC)."""

    def verify_signature(self, key: Handle, digest: bytes, signature: bytes) -> Ticket:
        """Return a ticket for an RSASSA signature with SHA-256; code SIGNATURE if it is wrong."""

    def session(
        self, kind: SessionKind, key: StorageKey | None = None
    ) -> AbstractContextManager[Session]:
        """Start a session, salted to ``key``, for the length of the block."""

    # -- policies --

    def policy_pcr(self, session: Session, *pcrs: int) -> None:
        """Bind to the present values of SHA-256 PCRs."""

    def policy_nv(
        self, session: Session, index: NvPublic, operand: bytes, operation: Operation
    ) -> None:
        """Demand that ``index`` compares with ``operand``; code POLICY when it does not."""

    def policy_authorize(
        self,
        session: Session,
        approved: bytes,
        key_name: bytes,
        ticket: Ticket,
        policy_ref: bytes = b"",
    ) -> None:
        """Exchange the policy so far, if it is ``approved``, for one that names key and reference
        only; code VALUE when it is another."""

    def policy_restart(self, session: Session) -> None:
        """Forget the policy so far."""

    def policy_command_code(self, session: Session, command: Command) -> None:
        """Bind to one command."""

    def policy_nv_written(self, session: Session, *, written: bool) -> None:
        """Demand that the index has, or has not, been written yet."""

    def policy_or(self, session: Session, branches: tuple[bytes, ...]) -> None:
        """Accept that the policy so far is one of ``branches``."""

    # -- non-volatile storage --

    def nv_define(self, public: NvPublic, auth: Auth = ...) -> None:
        """Define an index with an empty password, as the owner."""

    def nv_read_public(self, index: int) -> NvPublic:
        """Return what is public about an index; code HANDLE if it is undefined."""

    def nv_read(
        self,
        public: NvPublic,
        auth: Auth = ...,
        *,
        prepare: Callable[[], None] | None = None,
    ) -> bytes:
        """Return the content of an index; ``prepare`` is called before each piece."""

    def nv_write(
        self,
        public: NvPublic,
        data: bytes,
        auth: Auth = ...,
        *,
        by: Handle | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        """Replace the content of an index; ``by`` is who writes, the index itself unless given."""

    # -- hierarchies --

    def clear(self, hierarchy: Hierarchy, auth: Auth = ...) -> None:
        """Forget everything of owner, endorsement and lockout."""

    def hierarchy_change_auth(self, hierarchy: Hierarchy, new: bytes, auth: Auth) -> None:
        """Change the authorisation value of a hierarchy."""

    def dictionary_attack_parameters(
        self, tries: int, recovery: int, lockout_recovery: int, auth: Auth = ...
    ) -> None:
        """Set how many wrong guesses lock, and how many seconds forgive one."""
