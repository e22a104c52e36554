"""The commands of a TPM 2.0 that machineOS needs, spoken directly.

Follows the TCG TPM 2.0 Library, part 3 (commands); numbers and structures are in ``wire``,
sessions in ``session``, ways to a TPM in ``transport``, and how one command goes through in
``channel``. Invariant: every failure is a ``TpmError`` that names the command and carries the
return code. See docs/adr/0004-tpm-commands-in-python.md.
Shared with the initrd: standard library, and cryptography imported where it is needed.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from machineos.errors import TpmError
from machineos.host.tpm import wire
from machineos.host.tpm.channel import Channel
from machineos.host.tpm.code import Rc
from machineos.host.tpm.session import Auth
from machineos.host.tpm.wire import (
    Capability,
    Command,
    Handle,
    Hierarchy,
    NvPublic,
    Operation,
    Property,
    Reader,
    StorageKey,
    Ticket,
    sized,
    u16,
    u32,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from machineos.host.tpm.session import Session

_NO_AUTH = Auth()
# As many handles as are asked for at once; they fit into one answer.
_PAGE = 254


class Tpm(Channel):
    """The commands; a context manager that lets go of the TPM. Not for use by two threads."""

    # -- the TPM itself ------------------------------------------------------------------------

    def startup(self) -> None:
        """Start a TPM after its reset, which firmware does on a machine. Raises: TpmError."""
        try:
            self.run(Command.STARTUP, parameters=u16(0))
        except TpmError as error:
            if error.code != Rc.INITIALIZE:  # has been started already
                raise

    def get_random(self, count: int) -> bytes:
        """Return ``count`` random bytes, at most 32. Raises: TpmError."""
        reader = self.run(Command.GET_RANDOM, parameters=u16(count))
        data = reader.sized()
        reader.end()
        if len(data) != count:
            raise TpmError(f"the TPM returned {len(data)} random bytes, not {count}")
        return data

    def properties(self, first: Property, count: int = 1) -> dict[int, int]:
        """Return up to ``count`` properties from ``first`` on, by number. Raises: TpmError."""
        reader = self._capability(Capability.PROPERTIES, first, count)
        found = {reader.u32(): reader.u32() for _ in range(reader.count(count))}
        reader.end()
        return found

    def property(self, wanted: Property) -> int:
        """Return one property. Raises: TpmError, also when the TPM does not have it."""
        found = self.properties(wanted)
        if wanted not in found:
            raise TpmError(f"the TPM does not know the property {wanted.name}")
        return found[wanted]

    def handles(self, first: int) -> tuple[int, ...]:
        """Return the handles from ``first`` to the end of its kind. Raises: TpmError."""
        found: list[int] = []
        while True:
            reader = self._capability(Capability.HANDLES, first, _PAGE)
            page = [reader.u32() for _ in range(reader.count(_PAGE))]
            reader.end()
            found += page
            if len(page) < _PAGE:
                return tuple(found)
            if page[-1] < first:
                raise TpmError("the TPM lists its handles in no order")
            first = page[-1] + 1

    def pcr_banks(self) -> dict[int, frozenset[int]]:
        """Return the PCRs that exist, by hash algorithm. Raises: TpmError."""
        reader = self._capability(Capability.PCRS, 0, 16)
        banks = wire.read_pcr_selections(reader)
        reader.end()
        return banks

    def _capability(self, capability: Capability, first: int, count: int) -> Reader:
        parameters = u32(capability, first, count)
        reader = self.run(Command.GET_CAPABILITY, parameters=parameters)
        reader.u8()
        if reader.u32() != capability:
            raise TpmError("the TPM answered to another GET_CAPABILITY")
        return reader

    # -- platform configuration registers ------------------------------------------------------

    def pcr_read(self, *pcrs: int, auth: Auth | None = None) -> dict[int, bytes]:
        """Return SHA-256 PCRs by number (eight at most); those that do not exist are left out.

        ``auth`` may be an audit session, which makes the answer authentic. Raises: TpmError.
        """
        auths = (auth,) if auth else ()
        reader = self.run(Command.PCR_READ, parameters=wire.pcr_selection(pcrs), auths=auths)
        reader.u32()  # the update counter
        selected = wire.read_pcr_selections(reader).get(wire.ALG_SHA256, frozenset())
        values = [reader.sized() for _ in range(reader.count(8))]
        reader.end()
        known = len(values) == len(selected) and selected <= set(pcrs)
        if not known or any(len(value) != wire.DIGEST_SIZE for value in values):
            raise TpmError("the TPM answered with PCRs that it was not asked for")
        return dict(zip(sorted(selected), values, strict=True))

    def pcr_extend(self, pcr: int, digest: bytes, auth: Auth = _NO_AUTH) -> None:
        """Extend the SHA-256 value of ``pcr`` by ``digest``. Raises: TpmError."""
        parameters = u32(1) + u16(wire.ALG_SHA256) + digest
        self.run(Command.PCR_EXTEND, (Handle.of(pcr),), parameters, (auth,)).end()

    # -- keys ----------------------------------------------------------------------------------

    def create_primary(self, hierarchy: Hierarchy, auth: Auth = _NO_AUTH) -> StorageKey:
        """Return the hierarchy's storage root key, loaded; flush it when done. Raises: TpmError."""
        sensitive = sized(sized(b"") + sized(b""))
        parameters = sensitive + sized(wire.STORAGE_TEMPLATE) + sized(b"") + u32(0)
        value, reader = self.execute(
            Command.CREATE_PRIMARY,
            (Handle.of(hierarchy),),
            parameters,
            (auth,),
            returns_handle=True,
        )
        return wire.read_storage_key(value, reader.sized())

    def evict_control(self, key: StorageKey, persistent: int, auth: Auth = _NO_AUTH) -> None:
        """Make a loaded key of the owner stay at ``persistent``. Raises: TpmError."""
        handles = (Handle.of(Hierarchy.OWNER), key.handle)
        self.run(Command.EVICT_CONTROL, handles, u32(persistent), (auth,)).end()

    def read_storage_key(self, value: int) -> StorageKey:
        """Return the storage key at handle ``value``.

        Raises: TpmError (code HANDLE when there is none), also when it is another kind of key.
        """
        reader = self.run(Command.READ_PUBLIC, (Handle.of(value),))
        key = wire.read_storage_key(value, reader.sized())
        if reader.sized() != key.name:
            raise TpmError(f"the key 0x{value:x} of the TPM has not the name it claims")
        return key

    def load_external(self, public: bytes) -> Handle:
        """Load a public key (TPMT_PUBLIC) into the owner hierarchy. Raises: TpmError."""
        parameters = sized(b"") + sized(public) + u32(Hierarchy.OWNER)
        value, reader = self.execute(Command.LOAD_EXTERNAL, (), parameters, (), returns_handle=True)
        if reader.sized() != wire.object_name(public):
            raise TpmError("the TPM loaded another key than it was given")
        reader.end()
        return Handle(value, wire.object_name(public))

    def verify_signature(self, key: Handle, digest: bytes, signature: bytes) -> Ticket:
        """Return a ticket for an RSASSA signature with SHA-256. Raises: TpmError (SIGNATURE)."""
        parameters = sized(digest) + u16(wire.ALG_RSASSA, wire.ALG_SHA256) + sized(signature)
        reader = self.run(Command.VERIFY_SIGNATURE, (key,), parameters)
        ticket = Ticket(reader.u16(), reader.u32(), reader.sized())
        reader.end()
        return ticket

    # -- sessions and policies -----------------------------------------------------------------

    def _policy(self, command: Command, session: Session, parameters: bytes) -> None:
        self.run(command, (Handle.of(session.handle),), parameters)

    def policy_pcr(self, session: Session, *pcrs: int) -> None:
        """Bind to the present values of SHA-256 PCRs. Raises: TpmError."""
        self._policy(Command.POLICY_PCR, session, sized(b"") + wire.pcr_selection(pcrs))

    def policy_nv(
        self, session: Session, index: NvPublic, operand: bytes, operation: Operation
    ) -> None:
        """Demand that ``index`` compares with ``operand``; it must be readable with no password.

        Raises: TpmError, code POLICY when the comparison fails.
        """
        handles = (index.handle, index.handle, Handle.of(session.handle))
        parameters = sized(operand) + u16(0, operation)
        self.run(Command.POLICY_NV, handles, parameters, (_NO_AUTH,)).end()

    def policy_authorize(
        self,
        session: Session,
        approved: bytes,
        key_name: bytes,
        ticket: Ticket,
        policy_ref: bytes = b"",
    ) -> None:
        """Exchange the policy so far, if it is ``approved``, for one that names the key and the
        reference only; the ticket is for a signature over both.

        Raises: TpmError, code VALUE when the policy so far is another.
        """
        parameters = sized(approved) + sized(policy_ref) + sized(key_name) + ticket.marshal()
        self._policy(Command.POLICY_AUTHORIZE, session, parameters)

    def policy_command_code(self, session: Session, command: Command) -> None:
        """Bind to one command. Raises: TpmError."""
        self._policy(Command.POLICY_COMMAND_CODE, session, u32(command))

    def policy_nv_written(self, session: Session, *, written: bool) -> None:
        """Demand that the index has, or has not, been written yet. Raises: TpmError."""
        self._policy(Command.POLICY_NV_WRITTEN, session, bytes([written]))

    def policy_or(self, session: Session, branches: tuple[bytes, ...]) -> None:
        """Accept that the policy so far is one of ``branches``. Raises: TpmError."""
        listed = u32(len(branches)) + b"".join(sized(branch) for branch in branches)
        self._policy(Command.POLICY_OR, session, listed)

    def policy_restart(self, session: Session) -> None:
        """Forget the policy so far. Raises: TpmError."""
        self._policy(Command.POLICY_RESTART, session, b"")

    def policy_get_digest(self, session: Session) -> bytes:
        """Return the digest of the policy so far. Raises: TpmError."""
        reader = self.run(Command.POLICY_GET_DIGEST, (Handle.of(session.handle),))
        digest = reader.sized()
        reader.end()
        return digest

    # -- non-volatile storage ------------------------------------------------------------------

    @cached_property
    def nv_buffer(self) -> int:
        """How many bytes one NV_Read or NV_Write moves. Raises: TpmError."""
        return max(64, min(self.property(Property.NV_BUFFER_MAX), 2048))

    def nv_define(self, public: NvPublic, auth: Auth = _NO_AUTH) -> None:
        """Define an index with an empty password, as the owner. Raises: TpmError."""
        parameters = sized(b"") + sized(public.marshal())
        self.run(Command.NV_DEFINE_SPACE, (Handle.of(Hierarchy.OWNER),), parameters, (auth,)).end()

    def nv_undefine(self, public: NvPublic, auth: Auth = _NO_AUTH) -> None:
        """Delete an index, as the owner. Raises: TpmError."""
        handles = (Handle.of(Hierarchy.OWNER), public.handle)
        self.run(Command.NV_UNDEFINE_SPACE, handles, b"", (auth,)).end()

    def nv_read_public(self, index: int) -> NvPublic:
        """Return what is public about an index. Raises: TpmError, code HANDLE if undefined."""
        reader = self.run(Command.NV_READ_PUBLIC, (Handle.of(index),))
        public = wire.read_nv_public(reader.sized())
        name = reader.sized()
        reader.end()
        if public.index != index or public.name != name:
            raise TpmError(f"NV index 0x{index:x} of the TPM has not the name it claims")
        return public

    def nv_read(
        self,
        public: NvPublic,
        auth: Auth = _NO_AUTH,
        *,
        by: Handle | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> bytes:
        """Return the content of an index, piece by piece as the TPM can.

        ``by`` is who reads (the index itself unless given), ``auth`` its authorisation; ``prepare``
        is called before each piece, to satisfy a policy anew. Raises: TpmError.
        """
        data = b""
        while len(data) < public.size:
            if prepare is not None:
                prepare()
            wanted = min(self.nv_buffer, public.size - len(data))
            handles = (by or public.handle, public.handle)
            reader = self.run(Command.NV_READ, handles, u16(wanted, len(data)), (auth,))
            piece = reader.sized()
            reader.end()
            if len(piece) != wanted:
                raise TpmError(f"the TPM returned {len(piece)} bytes of NV, not {wanted}")
            data += piece
        return data

    def nv_write(
        self,
        public: NvPublic,
        data: bytes,
        auth: Auth = _NO_AUTH,
        *,
        by: Handle | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        """Replace the content of an index; parameters as of ``nv_read``. Raises: TpmError."""
        for start in range(0, len(data), self.nv_buffer):
            if prepare is not None:
                prepare()
            piece = data[start : start + self.nv_buffer]
            handles = (by or public.handle, public.handle)
            self.run(Command.NV_WRITE, handles, sized(piece) + u16(start), (auth,)).end()
            public = public.written()

    # -- hierarchies and the dictionary lockout ------------------------------------------------

    def clear(self, hierarchy: Hierarchy, auth: Auth = _NO_AUTH) -> None:
        """Forget everything of owner, endorsement and lockout, as LOCKOUT or PLATFORM.

        Raises: TpmError.
        """
        self.run(Command.CLEAR, (Handle.of(hierarchy),), b"", (auth,)).end()

    def hierarchy_change_auth(self, hierarchy: Hierarchy, new: bytes, auth: Auth) -> None:
        """Change the authorisation value of a hierarchy. Raises: TpmError."""
        changing = Auth(auth.session, auth.value, new, decrypt=auth.decrypt)
        handles = (Handle.of(hierarchy),)
        self.run(Command.HIERARCHY_CHANGE_AUTH, handles, sized(new), (changing,)).end()

    def dictionary_attack_parameters(
        self, tries: int, recovery: int, lockout_recovery: int, auth: Auth = _NO_AUTH
    ) -> None:
        """Set how many wrong guesses lock, and how many seconds forgive one. Raises: TpmError."""
        parameters = u32(tries, recovery, lockout_recovery)
        handles = (Handle.of(Hierarchy.LOCKOUT),)
        self.run(Command.DICTIONARY_ATTACK_PARAMETERS, handles, parameters, (auth,)).end()

    def dictionary_attack_lock_reset(self, auth: Auth = _NO_AUTH) -> None:
        """Forget wrong guesses so far. Raises: TpmError."""
        handles = (Handle.of(Hierarchy.LOCKOUT),)
        self.run(Command.DICTIONARY_ATTACK_LOCK_RESET, handles, b"", (auth,)).end()
