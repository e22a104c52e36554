"""Sessions with a TPM: key agreement, HMACs of commands and answers, encrypted parameters.

Follows the TCG TPM 2.0 Library, part 1, "Session-based authorizations", "Parameter encryption" and
the annex on ECC (secret sharing). Invariant: a session is salted to a key of the TPM whose private
half never leaves it, so nobody on the bus can compute an HMAC or read a parameter; nonces change
with every command; an answer whose HMAC is wrong is never used.
Shared with the initrd: standard library, and cryptography imported where it is needed.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from enum import IntFlag
from typing import TYPE_CHECKING

from machineos.errors import TpmError
from machineos.host.tpm.wire import RS_PW, Reader, SessionKind, StorageKey, sha256, sized, u32

if TYPE_CHECKING:
    from collections.abc import Callable

NONCE_SIZE = 32
_BLOCK = 16


class SessionAttribute(IntFlag):
    """TPMA_SESSION."""

    CONTINUE = 0x01
    DECRYPT = 0x20
    ENCRYPT = 0x40
    AUDIT = 0x80


def kdfa(key: bytes, label: bytes, party_u: bytes, party_v: bytes) -> bytes:
    """Return 32 bytes of key material: KDFa with SHA-256, one round (part 1, "KDFa()")."""
    message = u32(1) + label + b"\0" + party_u + party_v + u32(256)
    return hmac.digest(key, message, "sha256")


def kdfe(secret: bytes, label: bytes, party_u: bytes, party_v: bytes) -> bytes:
    """Return 32 bytes from an ECDH secret: KDFe with SHA-256, one round (part 1, "KDFe()")."""
    return sha256(u32(1), secret, label, b"\0", party_u, party_v)


def cfb(key: bytes, vector: bytes, data: bytes, *, encrypt: bool) -> bytes:
    """Return ``data`` through AES-128 in CFB mode with feedback of whole blocks.

    Built on single blocks: cryptography has moved its own CFB between modules from one release to
    the next, and the appliance and the builder have different releases.
    """
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 (made into CFB here)
    out = bytearray()
    for start in range(0, len(data), _BLOCK):
        piece = data[start : start + _BLOCK]
        pad = block.update(vector)
        mixed = bytes(byte ^ pad[at] for at, byte in enumerate(piece))
        out += mixed
        vector = mixed if encrypt else piece
    return bytes(out)


def make_salt(key: StorageKey) -> tuple[bytes, bytes]:
    """Return a fresh salt and the TPMS_ECC_POINT from which only ``key``'s TPM can derive it.

    Raises: TpmError when the key is not a point of the curve.
    """
    from cryptography.hazmat.primitives.asymmetric import ec

    curve = ec.SECP256R1()
    numbers = ec.EllipticCurvePublicNumbers(
        int.from_bytes(key.x, "big"), int.from_bytes(key.y, "big"), curve
    )
    try:
        public = numbers.public_key()
    except ValueError as error:
        raise TpmError("the storage key of the TPM is not a point of P-256") from error
    own = ec.generate_private_key(curve)
    point = own.public_key().public_numbers()
    x, y = point.x.to_bytes(32, "big"), point.y.to_bytes(32, "big")
    shared = own.exchange(ec.ECDH(), public)
    return kdfe(shared, b"SECRET", x, key.x), sized(x) + sized(y)


class Session:
    """A started session. Not for use by two threads; holds secrets, so it prints none of them."""

    def __init__(self, handle: int, kind: SessionKind, key: bytes, nonce: bytes) -> None:
        self.handle = handle
        self.kind = kind
        self._key = key
        self._nonce_tpm = nonce
        self._nonce_caller = b""

    def __repr__(self) -> str:
        return f"Session(0x{self.handle:08x}, {self.kind.name})"

    def roll(self, nonce: bytes) -> None:
        """Take a fresh caller's nonce for the next command."""
        self._nonce_caller = nonce

    def encrypt_command(self, auth: bytes, data: bytes) -> bytes:
        """Return the content of a command's first parameter, encrypted."""
        key, vector = self._cipher(auth, self._nonce_caller, self._nonce_tpm)
        return cfb(key, vector, data, encrypt=True)

    def decrypt_response(self, auth: bytes, data: bytes) -> bytes:
        """Return the content of an answer's first parameter, decrypted."""
        key, vector = self._cipher(auth, self._nonce_tpm, self._nonce_caller)
        return cfb(key, vector, data, encrypt=False)

    def command_entry(self, auth: bytes, command_hash: bytes, attributes: int) -> bytes:
        """Return the TPMS_AUTH_COMMAND of the command with ``command_hash`` (cpHash)."""
        tail = bytes([attributes])
        mac = self._mac(auth, command_hash + self._nonce_caller + self._nonce_tpm + tail)
        return u32(self.handle) + sized(self._nonce_caller) + tail + sized(mac)

    def check_response(self, auth: bytes, response_hash: bytes, reader: Reader) -> bool:
        """Read a TPMS_AUTH_RESPONSE and return whether the TPM itself made it.

        The new nonce is kept only if so. Raises: TpmError when it is malformed.
        """
        nonce, tail, mac = reader.sized(), reader.take(1), reader.sized()
        wanted = self._mac(auth, response_hash + nonce + self._nonce_caller + tail)
        if not hmac.compare_digest(mac, wanted) or len(nonce) != NONCE_SIZE:
            return False
        self._nonce_tpm = nonce
        return True

    def _mac(self, auth: bytes, message: bytes) -> bytes:
        # A policy session proves its policy, not the authorisation value of the object.
        key = self._key + (auth if self.kind is SessionKind.HMAC else b"")
        return hmac.digest(key, message, "sha256")

    def _cipher(self, auth: bytes, newer: bytes, older: bytes) -> tuple[bytes, bytes]:
        material = kdfa(self._key + auth, b"CFB", newer, older)
        return material[:_BLOCK], material[_BLOCK:]


@dataclass(frozen=True, slots=True, repr=False)
class Auth:
    """One entry of a command's authorisation area: a session, or a password when it is None.

    ``value`` is the authorisation value of the object; ``new_value`` is what it will be once the
    command has been executed, when that differs. ``decrypt`` hides the command's first parameter,
    ``encrypt`` the answer's first.
    """

    session: Session | None = None
    value: bytes = b""
    new_value: bytes | None = None
    decrypt: bool = False
    encrypt: bool = False
    audit: bool = False

    def roll(self, random: Callable[[int], bytes]) -> None:
        """Take a fresh nonce."""
        if self.session is not None:
            self.session.roll(random(NONCE_SIZE))

    def hide(self, parameters: bytes) -> bytes:
        """Return the command's parameters with the first one encrypted, if that was asked for."""
        if self.session is None or not self.decrypt:
            return parameters
        reader = Reader(parameters, "a command")
        first = self.session.encrypt_command(strip(self.value), reader.sized())
        return sized(first) + reader.rest()

    def entry(self, command_hash: bytes) -> bytes:
        """Return the TPMS_AUTH_COMMAND."""
        if self.session is None:
            continued = bytes([SessionAttribute.CONTINUE])
            return u32(RS_PW) + sized(b"") + continued + sized(strip(self.value))
        attributes = SessionAttribute.CONTINUE
        for wanted, bit in (
            (self.decrypt, SessionAttribute.DECRYPT),
            (self.encrypt, SessionAttribute.ENCRYPT),
            (self.audit, SessionAttribute.AUDIT),
        ):
            if wanted:
                attributes |= bit
        return self.session.command_entry(strip(self.value), command_hash, attributes)

    def check(self, response_hash: bytes, reader: Reader) -> bool:
        """Read a TPMS_AUTH_RESPONSE; return whether it is authentic. Raises: TpmError."""
        if self.session is None:
            reader.sized()
            reader.u8()
            reader.sized()
            return True
        return self.session.check_response(self._after(), response_hash, reader)

    def show(self, parameters: bytes) -> bytes:
        """Return the answer's parameters with the first one decrypted. Raises: TpmError."""
        if self.session is None or not self.encrypt:
            return parameters
        reader = Reader(parameters, "a command")
        first = self.session.decrypt_response(self._after(), reader.sized())
        return sized(first) + reader.rest()

    def _after(self) -> bytes:
        return strip(self.value if self.new_value is None else self.new_value)


def strip(value: bytes) -> bytes:
    """Return an authorisation value as the TPM keeps it: without zero bytes at its end."""
    return value.rstrip(b"\0")


def session_key(salt: bytes, nonce_tpm: bytes, nonce_caller: bytes) -> bytes:
    """Return the key of a salted, unbound session."""
    return kdfa(salt, b"ATH", nonce_tpm, nonce_caller)
