"""What goes over the wire to a TPM 2.0: numbers, structures, return codes.

Follows the TCG TPM 2.0 Library, part 2 (structures). Owns every number of that document that this
project uses. Invariant: ``Reader`` never reads past the end of what the TPM sent and accepts no
trailing bytes, so an answer is used as a whole or refused (the TPM's bus may be in hostile hands).
Shared with the initrd: standard library only.
"""

from __future__ import annotations

import hashlib
import struct
from enum import IntEnum, IntFlag

import msgspec

from machineos.errors import TpmError

ST_NO_SESSIONS = 0x8001
ST_SESSIONS = 0x8002

ALG_RSA = 0x0001
ALG_AES = 0x0006
ALG_SHA256 = 0x000B
ALG_NULL = 0x0010
ALG_RSASSA = 0x0014
ALG_ECC = 0x0023
ALG_CFB = 0x0043
CURVE_P256 = 0x0003

RS_PW = 0x40000009
DIGEST_SIZE = 32
MAX_MESSAGE = 4096
_HEADER = struct.Struct(">HII")
PCR_COUNT = 24


class Command(IntEnum):
    """TPM_CC: the commands that are spoken here."""

    EVICT_CONTROL = 0x120
    NV_UNDEFINE_SPACE = 0x122
    CLEAR = 0x126
    HIERARCHY_CHANGE_AUTH = 0x129
    NV_DEFINE_SPACE = 0x12A
    CREATE_PRIMARY = 0x131
    NV_WRITE = 0x137
    DICTIONARY_ATTACK_LOCK_RESET = 0x139
    DICTIONARY_ATTACK_PARAMETERS = 0x13A
    STARTUP = 0x144
    POLICY_NV = 0x149
    NV_READ = 0x14E
    FLUSH_CONTEXT = 0x165
    LOAD_EXTERNAL = 0x167
    NV_READ_PUBLIC = 0x169
    POLICY_AUTHORIZE = 0x16A
    POLICY_COMMAND_CODE = 0x16C
    POLICY_OR = 0x171
    READ_PUBLIC = 0x173
    START_AUTH_SESSION = 0x176
    VERIFY_SIGNATURE = 0x177
    GET_CAPABILITY = 0x17A
    GET_RANDOM = 0x17B
    PCR_READ = 0x17E
    POLICY_PCR = 0x17F
    POLICY_RESTART = 0x180
    PCR_EXTEND = 0x182
    POLICY_GET_DIGEST = 0x189
    POLICY_NV_WRITTEN = 0x18F


class Hierarchy(IntEnum):
    """TPM_RH: handles that always exist."""

    OWNER = 0x40000001
    NULL = 0x40000007
    LOCKOUT = 0x4000000A
    ENDORSEMENT = 0x4000000B
    PLATFORM = 0x4000000C


class SessionKind(IntEnum):
    """TPM_SE: what a session is for."""

    HMAC = 0
    POLICY = 1
    TRIAL = 3


class Operation(IntEnum):
    """TPM_EO: how PolicyNV compares the index (left) with the operand (right)."""

    EQ = 0
    UNSIGNED_GT = 3
    UNSIGNED_LT = 5
    UNSIGNED_GE = 7
    UNSIGNED_LE = 9


class Capability(IntEnum):
    """TPM_CAP: what GetCapability can be asked for."""

    HANDLES = 1
    PCRS = 5
    PROPERTIES = 6


class Property(IntEnum):
    """TPM_PT: single values that GetCapability returns."""

    MANUFACTURER = 0x105
    VENDOR_STRING_1 = 0x106  # and the three behind it: four characters each
    NV_INDEX_MAX = 0x117
    NV_BUFFER_MAX = 0x12C
    PERMANENT = 0x200
    LOCKOUT_COUNTER = 0x20E
    MAX_AUTH_FAIL = 0x20F
    LOCKOUT_INTERVAL = 0x210
    LOCKOUT_RECOVERY = 0x211


class Permanent(IntFlag):
    """TPMA_PERMANENT, the bits that matter here."""

    OWNER_AUTH_SET = 1 << 0
    ENDORSEMENT_AUTH_SET = 1 << 1
    LOCKOUT_AUTH_SET = 1 << 2
    DISABLE_CLEAR = 1 << 8
    IN_LOCKOUT = 1 << 9


class NvAttribute(IntFlag):
    """TPMA_NV: who may do what to an NV index."""

    PPWRITE = 1 << 0
    OWNERWRITE = 1 << 1
    AUTHWRITE = 1 << 2
    POLICYWRITE = 1 << 3
    PPREAD = 1 << 16
    OWNERREAD = 1 << 17
    AUTHREAD = 1 << 18
    POLICYREAD = 1 << 19
    NO_DA = 1 << 25
    WRITTEN = 1 << 29
    PLATFORMCREATE = 1 << 30


class Reader:
    """Reads big-endian values off the front of ``data``; never past its end."""

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._at = 0
        self._what = what

    def take(self, count: int) -> bytes:
        """Return the next ``count`` bytes. Raises: TpmError when there are fewer."""
        end = self._at + count
        if end > len(self._data):
            raise TpmError(f"the TPM's answer to {self._what} is too short")
        piece = self._data[self._at : end]
        self._at = end
        return piece

    def u8(self) -> int:
        """Return one byte. Raises: TpmError."""
        return int.from_bytes(self.take(1), "big")

    def u16(self) -> int:
        """Return two bytes as a number. Raises: TpmError."""
        return int.from_bytes(self.take(2), "big")

    def u32(self) -> int:
        """Return four bytes as a number. Raises: TpmError."""
        return int.from_bytes(self.take(4), "big")

    def sized(self) -> bytes:
        """Return a TPM2B: two bytes of length, then as many bytes. Raises: TpmError."""
        return self.take(self.u16())

    def count(self, limit: int) -> int:
        """Return the length of a list, which may be ``limit`` at most. Raises: TpmError."""
        value = self.u32()
        if value > limit:
            raise TpmError(f"the TPM's answer to {self._what} lists {value} things")
        return value

    def rest(self) -> bytes:
        """Return all that is left."""
        return self.take(len(self._data) - self._at)

    def end(self) -> None:
        """Raise TpmError when something is left."""
        if self._at != len(self._data):
            raise TpmError(f"the TPM's answer to {self._what} has bytes too many")


def sized(data: bytes) -> bytes:
    """Return ``data`` as a TPM2B."""
    return len(data).to_bytes(2, "big") + data


def u16(*values: int) -> bytes:
    """Return ``values`` as two bytes each."""
    return b"".join(value.to_bytes(2, "big") for value in values)


def u32(*values: int) -> bytes:
    """Return ``values`` as four bytes each."""
    return b"".join(value.to_bytes(4, "big") for value in values)


def sha256(*parts: bytes) -> bytes:
    """Return the SHA-256 of ``parts`` one after the other."""
    return hashlib.sha256(b"".join(parts)).digest()


def header(tag: int, size: int, code: int) -> bytes:
    """Return the ten bytes that every command starts with."""
    return _HEADER.pack(tag, size, code)


def parse_header(data: bytes) -> tuple[int, int, int]:
    """Return tag, size and return code of an answer.

    Raises: TpmError when it is shorter than a header or has an impossible size.
    """
    if len(data) < _HEADER.size:
        raise TpmError("the TPM's answer is shorter than a header")
    tag, size, code = _HEADER.unpack_from(data)
    if not _HEADER.size <= size <= MAX_MESSAGE:
        raise TpmError(f"the TPM's answer claims {size} bytes")
    return tag, size, code


def pcr_selection(pcrs: tuple[int, ...]) -> bytes:
    """Return a TPML_PCR_SELECTION of PCRs of the SHA-256 bank."""
    bits = sum(1 << pcr for pcr in set(pcrs))
    return u32(1) + u16(ALG_SHA256) + b"\x03" + bits.to_bytes(3, "little")


def read_pcr_selections(reader: Reader) -> dict[int, frozenset[int]]:
    """Return what a TPML_PCR_SELECTION selects, by hash algorithm. Raises: TpmError."""
    banks: dict[int, frozenset[int]] = {}
    for _ in range(reader.count(16)):
        algorithm = reader.u16()
        bits = int.from_bytes(reader.take(reader.u8()), "little")
        banks[algorithm] = frozenset(pcr for pcr in range(PCR_COUNT) if bits >> pcr & 1)
    return banks


class Handle(msgspec.Struct, frozen=True):
    """A TPM_HANDLE with the name of what it stands for (part 1, "Names")."""

    value: int
    name: bytes

    @classmethod
    def of(cls, value: int) -> Handle:
        """Return a handle that is its own name: a hierarchy, a PCR, a session."""
        return cls(value, u32(value))


class NvPublic(msgspec.Struct, frozen=True):
    """TPMS_NV_PUBLIC with nameAlg SHA-256."""

    index: int
    attributes: NvAttribute
    policy: bytes
    size: int

    def marshal(self) -> bytes:
        """Return the structure as the TPM hashes it."""
        head = u32(self.index) + u16(ALG_SHA256) + u32(self.attributes)
        return head + sized(self.policy) + u16(self.size)

    @property
    def name(self) -> bytes:
        """The name of the index: nameAlg and the digest of its public area."""
        return u16(ALG_SHA256) + sha256(self.marshal())

    @property
    def handle(self) -> Handle:
        """The index as the handle of a command."""
        return Handle(self.index, self.name)

    def written(self) -> NvPublic:
        """Return the public area as it is once something has been written."""
        attributes = self.attributes | NvAttribute.WRITTEN
        return NvPublic(self.index, attributes, self.policy, self.size)


def read_nv_public(data: bytes) -> NvPublic:
    """Return the NV public area in ``data``. Raises: TpmError, also for another nameAlg."""
    reader = Reader(data, "NV_READ_PUBLIC")
    index, algorithm = reader.u32(), reader.u16()
    if algorithm != ALG_SHA256:
        raise TpmError(f"NV index 0x{index:x} is not named by SHA-256")
    public = NvPublic(index, NvAttribute(reader.u32()), reader.sized(), reader.u16())
    reader.end()
    return public


# TCG TPM v2.0 Provisioning Guidance, storage root key, ECC P-256: fixedTPM, fixedParent,
# sensitiveDataOrigin, userWithAuth, noDA, restricted, decrypt.
STORAGE_ATTRIBUTES = 0x00030472
_STORAGE_PARAMETERS = u16(ALG_AES, 128, ALG_CFB, ALG_NULL, CURVE_P256, ALG_NULL)
_STORAGE_HEAD = u16(ALG_ECC, ALG_SHA256) + u32(STORAGE_ATTRIBUTES) + sized(b"")
STORAGE_TEMPLATE = _STORAGE_HEAD + _STORAGE_PARAMETERS + sized(bytes(32)) + sized(bytes(32))


class StorageKey(msgspec.Struct, frozen=True):
    """A P-256 storage key of the TPM: the other side of a salted session."""

    handle: Handle
    x: bytes
    y: bytes

    @property
    def name(self) -> bytes:
        """The name of the key, which a caller can pin."""
        return self.handle.name


def read_storage_key(value: int, public: bytes) -> StorageKey:
    """Return the storage key whose TPMT_PUBLIC is ``public``.

    Raises: TpmError unless it is a restricted decryption key on P-256 that never leaves its TPM.
    """
    reader = Reader(public, "READ_PUBLIC")
    prefix = reader.take(len(_STORAGE_HEAD) + len(_STORAGE_PARAMETERS))
    if prefix != _STORAGE_HEAD + _STORAGE_PARAMETERS:
        raise TpmError(f"the key 0x{value:x} of the TPM is not a P-256 storage root key")
    x, y = reader.sized(), reader.sized()
    reader.end()
    if not 0 < len(x) <= 32 or not 0 < len(y) <= 32:
        raise TpmError(f"the key 0x{value:x} of the TPM is not a point of P-256")
    name = u16(ALG_SHA256) + sha256(public)
    return StorageKey(Handle(value, name), x.rjust(32, b"\0"), y.rjust(32, b"\0"))


# sign, decrypt, userWithAuth, and the exponent spelled out: what tpm2_loadexternal makes of a key,
# so that the predecessor's tools agree with us on its name.
_POLICY_KEY_ATTRIBUTES = 0x00060040


def rsa_public(modulus: int, bits: int) -> bytes:
    """Return the TPMT_PUBLIC of an RSA key (exponent 65537) that signs policies."""
    head = u16(ALG_RSA, ALG_SHA256) + u32(_POLICY_KEY_ATTRIBUTES) + sized(b"")
    parameters = u16(ALG_NULL, ALG_NULL, bits) + u32(65537)
    return head + parameters + sized(modulus.to_bytes(bits // 8, "big"))


def object_name(public: bytes) -> bytes:
    """Return the name of the object whose TPMT_PUBLIC (nameAlg SHA-256) is ``public``."""
    return u16(ALG_SHA256) + sha256(public)


class Ticket(msgspec.Struct, frozen=True):
    """TPMT_TK_VERIFIED: the TPM's word that it checked a signature."""

    tag: int
    hierarchy: int
    digest: bytes

    def marshal(self) -> bytes:
        """Return the ticket as PolicyAuthorize takes it."""
        return u16(self.tag) + u32(self.hierarchy) + sized(self.digest)
