"""Policies of the TPM: which digest stands for which state of the machine, and who signed it.

Follows the TCG TPM 2.0 Library, part 3, "Enhanced authorization commands", and for the document
systemd's JSON for the ``.pcrsig`` section of a UKI. Pure: nothing here speaks to a TPM. Invariant:
a digest computed here is what a TPM computes for the same commands (tests compare the two).
Shared with the initrd: standard library, msgspec, and cryptography imported where it is needed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import TYPE_CHECKING, Literal

import msgspec

from machineos.core.jsondoc import decode_json
from machineos.errors import DocumentError, Fault, SignatureError
from machineos.host.tpm.wire import (
    DIGEST_SIZE,
    PCR_COUNT,
    Command,
    NvAttribute,
    NvPublic,
    object_name,
    pcr_selection,
    rsa_public,
    sha256,
    u16,
    u32,
)
from machineos.host.tpm.wire import Operation as Operation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

EMPTY = bytes(DIGEST_SIZE)
BOOT_PCRS = (7, 11)
VERSION_INDEX = 0x1500020
VERSION_SIZE = 4
# Read by anybody, so that PolicyNV needs no secret; written only by a policy.
VERSION_ATTRIBUTES = NvAttribute.AUTHREAD | NvAttribute.POLICYWRITE | NvAttribute.NO_DA
# The door closes in two phases. What may be read in which, the TPM itself keeps apart: the policies
# of the second name another reference (``policyRef``), and PCR 11 as the first door leaves it.
Phase = Literal["first", "second"]
Purpose = Literal["first", "second", "admin"]
PHASES: tuple[Phase, ...] = ("first", "second")
FIRST_DOOR = hashlib.sha256(b"machineos-first-door").digest()
"""What the first door extends PCR 11 with."""
_SECOND = hashlib.sha256(b"machineos phase 2").digest()
_VERSION = re.compile(r"[0-9]{4}")
_HEX_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_DOCUMENT = 256 << 10
_MAX_ENTRIES = 64
_MAX_PCRS = 8  # what one PCR_Read returns
_MAX_SIGNATURE = 512  # of RSA 4096
_NAME = "signed TPM policies (.pcrsig)"


# -- digests -------------------------------------------------------------------------------------


def policy_pcr(old: bytes, values: Mapping[int, bytes]) -> bytes:
    """Return the policy after PolicyPCR with these SHA-256 PCRs."""
    selection = pcr_selection(tuple(values))
    digest = sha256(*(values[pcr] for pcr in sorted(values)))
    return sha256(old, u32(Command.POLICY_PCR), selection, digest)


def policy_nv(
    old: bytes, nv_name: bytes, operand: bytes, offset: int, operation: Operation
) -> bytes:
    """Return the policy after PolicyNV: the index ``nv_name`` compared with ``operand``."""
    arguments = sha256(operand, u16(offset, operation))
    return sha256(old, u32(Command.POLICY_NV), arguments, nv_name)


def policy_authorize(key_name: bytes, policy_ref: bytes = b"") -> bytes:
    """Return the policy after PolicyAuthorize: whatever the key ``key_name`` signs."""
    return sha256(sha256(EMPTY, u32(Command.POLICY_AUTHORIZE), key_name), policy_ref)


def policy_command_code(old: bytes, command: Command) -> bytes:
    """Return the policy after PolicyCommandCode: this command only."""
    return sha256(old, u32(Command.POLICY_COMMAND_CODE), u32(command))


def policy_nv_written(old: bytes, *, written: bool) -> bytes:
    """Return the policy after PolicyNvWritten."""
    return sha256(old, u32(Command.POLICY_NV_WRITTEN), bytes([written]))


def policy_or(branches: Sequence[bytes]) -> bytes:
    """Return the policy after PolicyOR of ``branches``."""
    return sha256(EMPTY, u32(Command.POLICY_OR), *branches)


# -- the two phases ------------------------------------------------------------------------------


def policy_ref(purpose: Purpose | None) -> bytes:
    """Return the reference that a policy for ``purpose`` is signed with.

    It is empty where systemd has none; None is a policy that does not say what it is for.
    """
    return _SECOND if purpose == "second" else b""


def in_phase(values: Mapping[int, bytes], phase: Phase) -> dict[int, bytes]:
    """Return PCRs as they are in a phase, of those that the initrd begins with."""
    if phase == "first":
        return dict(values)
    return {**values, 11: sha256(values[11], FIRST_DOOR)}


# -- keys and the version index ------------------------------------------------------------------


class PolicyKey(msgspec.Struct, frozen=True):
    """An RSA public key that signs policies: as the TPM takes it, its name, its fingerprint."""

    public: bytes
    name: bytes
    fingerprint: str

    def policy(self, phase: Phase) -> bytes:
        """Return the policy of everything that this key guards in one phase of the boot."""
        return policy_authorize(self.name, policy_ref(phase))


def policy_key(pem: bytes) -> PolicyKey:
    """Return the key in ``pem`` (SubjectPublicKeyInfo).

    Raises: DocumentError unless it is an RSA key of 2048 to 4096 bits with exponent 65537.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise DocumentError("TPM policy key", [Fault("", 0, "is not a public key")]) from error
    if not isinstance(key, rsa.RSAPublicKey):
        raise DocumentError("TPM policy key", [Fault("", 0, "is not an RSA key")])
    numbers = key.public_numbers()
    if key.key_size not in {2048, 3072, 4096} or numbers.e != 65537:
        fault = Fault("", 0, "is not of 2048, 3072 or 4096 bits with exponent 65537")
        raise DocumentError("TPM policy key", [fault])
    public = rsa_public(numbers.n, key.key_size)
    der = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return PolicyKey(public, object_name(public), hashlib.sha256(der).hexdigest())


def first_write_policy() -> bytes:
    """Return the policy that lets the version index be written once, when it has no content yet."""
    return policy_command_code(policy_nv_written(EMPTY, written=False), Command.NV_WRITE)


def version_index(luks_key: PolicyKey) -> NvPublic:
    """Return the index with the oldest policy version that may still boot, once written.

    Written for the first time by provisioning, later only in the second phase under a policy that
    ``luks_key`` signed.
    """
    policy = policy_or((luks_key.policy("second"), first_write_policy()))
    return NvPublic(VERSION_INDEX, VERSION_ATTRIBUTES, policy, VERSION_SIZE).written()


def check_version(version: str) -> str:
    """Return ``version`` if it is a policy version: four digits. Raises: DocumentError."""
    if not _is_version(version):
        raise DocumentError(
            "policy version", [Fault("", 0, f"{version[:20]!r} is not four digits")]
        )
    return version


def boot_policy(values: Mapping[int, bytes], version: str, version_name: bytes) -> bytes:
    """Return the policy of a UKI: Secure Boot state, the UKI itself, and not too old.

    ``values`` are PCR 7 and 11 at least. ``version`` is the UKI's own; the policy holds while the
    version in the TPM is not greater. ``version_name`` is ``version_index(luks_key).name``.
    Raises: DocumentError for a malformed version or a PCR left out.
    """
    operand = check_version(version).encode()
    if not set(BOOT_PCRS) <= set(values):
        raise DocumentError("boot policy", [Fault("", 0, "does not name PCR 7 and PCR 11")])
    measured = policy_pcr(EMPTY, values)
    return policy_nv(measured, version_name, operand, 0, Operation.UNSIGNED_LE)


def sign_policy(digest: bytes, sign: Callable[[bytes], bytes], policy_ref: bytes = b"") -> bytes:
    """Return the signature that PolicyAuthorize wants; ``sign`` makes RSASSA-PKCS1v15 SHA-256.

    Raises: SignatureError when ``digest`` is no digest; what ``sign`` raises.
    """
    if len(digest) != DIGEST_SIZE:
        raise SignatureError(f"a policy digest has {DIGEST_SIZE} bytes, not {len(digest)}")
    return sign(digest + policy_ref)


# -- the document in the UKI ---------------------------------------------------------------------


class SignedPolicy(msgspec.Struct, frozen=True):
    """One signed policy.

    ``version``, ``purpose`` (the phase of the boot) and ``values`` (what the PCRs were expected to
    be, in the order of ``pcrs``) are ours, absent in systemd's documents, and hints only: what
    counts is ``policy``, and what the signature is over.
    """

    pcrs: tuple[int, ...]
    fingerprint: str
    policy: bytes
    signature: bytes
    version: str | None = None
    purpose: Purpose | None = None
    values: tuple[bytes, ...] = ()


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pcrs: tuple[int, ...]
    pkfp: str
    pol: str
    sig: str
    version: str | None = None
    purpose: Purpose | None = None
    values: tuple[str, ...] = ()


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sha256: tuple[_Entry, ...]


def render_policies(policies: Sequence[SignedPolicy]) -> bytes:
    """Return the content of a ``.pcrsig`` section: systemd's JSON, always the same bytes."""
    entries = []
    for policy in policies:
        entry: dict[str, object] = {
            "pcrs": list(policy.pcrs),
            "pkfp": policy.fingerprint,
            "pol": policy.policy.hex(),
            "sig": base64.b64encode(policy.signature).decode(),
        }
        if policy.version is not None:
            entry["version"] = policy.version
        if policy.purpose is not None:
            entry["purpose"] = policy.purpose
        if policy.values:
            entry["values"] = [value.hex() for value in policy.values]
        entries.append(entry)
    return json.dumps({"sha256": entries}, separators=(",", ":")).encode() + b"\n"


def parse_policies(data: bytes) -> tuple[SignedPolicy, ...]:
    """Return the signed policies of a ``.pcrsig`` section, whose padding of zeros is ignored.

    Raises: DocumentError for anything unexpected: unknown keys, other hashes, bad hex or base64.
    """
    document = decode_json(data.rstrip(b"\0"), _Document, name=_NAME, limit=_MAX_DOCUMENT)
    if len(document.sha256) > _MAX_ENTRIES:
        raise DocumentError(_NAME, [Fault("sha256", 0, f"has more than {_MAX_ENTRIES} entries")])
    return tuple(
        _convert(entry, f"sha256[{number}]") for number, entry in enumerate(document.sha256)
    )


def _convert(entry: _Entry, path: str) -> SignedPolicy:
    signature = _signature(entry.sig)
    rising = list(entry.pcrs) == sorted({*entry.pcrs} & {*range(PCR_COUNT)})
    matched = not entry.values or len(entry.values) == len(entry.pcrs)
    checks = (
        ("pcrs", bool(entry.pcrs) and rising, "is not a rising list of PCR numbers"),
        ("pcrs", len(entry.pcrs) <= _MAX_PCRS, f"has more than {_MAX_PCRS} PCRs"),
        ("pkfp", _is_digest(entry.pkfp), "is not 64 lower-case hex digits"),
        ("pol", _is_digest(entry.pol), "is not 64 lower-case hex digits"),
        ("values", matched, "does not have one value for each PCR"),
        ("values", all(map(_is_digest, entry.values)), "holds a value that is not 64 hex digits"),
        ("version", _is_version(entry.version), "is not four digits"),
        ("sig", 0 < len(signature) <= _MAX_SIGNATURE, "is not base64 of a signature"),
    )
    faults = [Fault(f"{path}.{key}", 0, message) for key, holds, message in checks if not holds]
    if faults:
        raise DocumentError(_NAME, faults)
    return SignedPolicy(
        entry.pcrs,
        entry.pkfp,
        bytes.fromhex(entry.pol),
        signature,
        entry.version,
        entry.purpose,
        tuple(bytes.fromhex(value) for value in entry.values),
    )


def _is_version(text: str | None) -> bool:
    return text is None or _VERSION.fullmatch(text) is not None


def _is_digest(text: str) -> bool:
    return _HEX_DIGEST.fullmatch(text) is not None


def _signature(text: str) -> bytes:
    """Return the bytes of a signature, none for what is no base64."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""
