"""One command at a time to a TPM 2.0: authorised, hidden, sent, checked.

Follows the TCG TPM 2.0 Library, part 1, "Command/response processing". Invariant: every answer is
checked whole (size, tag, bounds, HMAC of the session) before anything in it is used.
Shared with the initrd: standard library, and cryptography imported where it is needed.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Self

from machineos.errors import TpmError
from machineos.host.tpm import wire
from machineos.host.tpm.code import Rc, base_code, describe_code
from machineos.host.tpm.session import NONCE_SIZE, Auth, Session, make_salt, session_key
from machineos.host.tpm.wire import (
    Command,
    Handle,
    Hierarchy,
    Reader,
    SessionKind,
    StorageKey,
    sized,
    u16,
    u32,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from machineos.core.clock import Clock
    from machineos.host.tpm.transport import Transport

_RETRIES = 40
_RETRY_DELAY = 0.05
_BUSY = frozenset({Rc.RETRY, Rc.TESTING, Rc.YIELDED, Rc.NV_RATE})


class Channel:
    """A TPM behind ``transport``; closes it when the block ends. Not for use by two threads."""

    def __init__(
        self,
        transport: Transport,
        *,
        clock: Clock,
        random: Callable[[int], bytes],
    ) -> None:
        """``random`` returns as many bytes as it is asked for; nonces are made of them."""
        self._transport = transport
        self._clock = clock
        self._random = random

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._transport.close()

    def run(
        self,
        command: Command,
        handles: tuple[Handle, ...] = (),
        parameters: bytes = b"",
        auths: tuple[Auth, ...] = (),
    ) -> Reader:
        """Execute a command; return a reader of the answer. Raises: TpmError."""
        return self.execute(command, handles, parameters, auths, returns_handle=False)[1]

    def execute(
        self,
        command: Command,
        handles: tuple[Handle, ...],
        parameters: bytes,
        auths: tuple[Auth, ...],
        *,
        returns_handle: bool,
    ) -> tuple[int, Reader]:
        """Execute a command; return the handle that it returns (or 0) and a reader of the rest.

        ``auths`` may hold passwords and one session. Raises: TpmError.
        """
        tag = wire.ST_SESSIONS if auths else wire.ST_NO_SESSIONS
        body = self._body(command, handles, parameters, auths)
        answer = self._exchange(command, wire.header(tag, len(body) + 10, command) + body, tag)
        reader = Reader(answer, command.name)
        new_handle = reader.u32() if returns_handle else 0
        return new_handle, _authentic(command, auths, reader) if auths else reader

    def _body(
        self,
        command: Command,
        handles: tuple[Handle, ...],
        parameters: bytes,
        auths: tuple[Auth, ...],
    ) -> bytes:
        """Return what follows the header: handles, authorisations, parameters."""
        for auth in auths:
            auth.roll(self._random)
        for auth in auths:
            parameters = auth.hide(parameters)
        body = u32(*(handle.value for handle in handles))
        if auths:
            names = b"".join(handle.name for handle in handles)
            command_hash = wire.sha256(u32(command), names, parameters)
            area = b"".join(auth.entry(command_hash) for auth in auths)
            body += u32(len(area)) + area
        return body + parameters

    def _exchange(self, command: Command, message: bytes, wanted_tag: int) -> bytes:
        """Send ``message``, again while the TPM is busy; return what follows the header."""
        for attempt in range(_RETRIES):
            answer = self._transport.transmit(message)
            tag, size, code = wire.parse_header(answer)
            if size != len(answer):
                raise TpmError(f"the TPM's answer to {command.name} has not the size it claims")
            if code == 0:
                if tag != wanted_tag:
                    raise TpmError(f"the TPM's answer to {command.name} has the wrong tag")
                return answer[10:]
            if code not in _BUSY:
                raise TpmError(
                    f"the TPM refused {command.name}: {describe_code(code)}",
                    code=base_code(code),
                )
            self._clock.sleep(_RETRY_DELAY * min(attempt + 1, 10))
        raise TpmError(f"the TPM stays too busy for {command.name}", code=Rc.RETRY)

    @contextmanager
    def session(self, kind: SessionKind, key: StorageKey | None = None) -> Iterator[Session]:
        """Start a session, salted to ``key``, for the length of the block.

        Only a trial session does without a key: everything else would be open on the bus.
        Raises: TpmError.
        """
        session = self._start_session(kind, key)
        try:
            yield session
        finally:
            # It may be gone already, or the TPM: the error that matters, if any, is another.
            with suppress(TpmError):
                self.flush(session.handle)

    def _start_session(self, kind: SessionKind, key: StorageKey | None) -> Session:
        salt, secret = make_salt(key) if key else (b"", b"")
        nonce = self._random(NONCE_SIZE)
        handles = (key.handle if key else Handle.of(Hierarchy.NULL), Handle.of(Hierarchy.NULL))
        cipher = u16(wire.ALG_AES, 128, wire.ALG_CFB) if key else u16(wire.ALG_NULL)
        parameters = sized(nonce) + sized(secret) + bytes([kind]) + cipher + u16(wire.ALG_SHA256)
        value, reader = self.execute(
            Command.START_AUTH_SESSION, handles, parameters, (), returns_handle=True
        )
        nonce_tpm = reader.sized()
        reader.end()
        if len(nonce_tpm) != NONCE_SIZE:
            raise TpmError("the TPM's nonce has the wrong size")
        secret_key = session_key(salt, nonce_tpm, nonce) if salt else b""
        return Session(value, kind, secret_key, nonce_tpm)

    def flush(self, handle: int) -> None:
        """Drop a loaded key or a session. Raises: TpmError."""
        self.run(Command.FLUSH_CONTEXT, parameters=u32(handle)).end()


def _authentic(command: Command, auths: tuple[Auth, ...], reader: Reader) -> Reader:
    """Return a reader of the answer's parameters, once every session says that the TPM made it.

    Raises: TpmError.
    """
    parameters = reader.take(reader.u32())
    response_hash = wire.sha256(u32(0), u32(command), parameters)
    authentic = [auth.check(response_hash, reader) for auth in auths]
    if not all(authentic):
        raise TpmError(
            f"the TPM's answer to {command.name} was changed on its way",
            hint="something may sit between the processor and the TPM",
        )
    reader.end()
    for auth in auths:
        parameters = auth.show(parameters)
    return Reader(parameters, command.name)
