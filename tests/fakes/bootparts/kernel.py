"""What the kernel trusts and allows: keyrings, IPE, dm-verity by signature, a capability."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from machineos.core.digest import Digest
from machineos.errors import (
    BootError,
    MissingError,
    SignatureError,
    ToolError,
    VerificationError,
)
from machineos.host.kernel.ipepolicy import policy_version
from machineos.oci.model.atomfs import Layer, layer_type_of
from machineos.trust.verify.chain import Publisher
from machineos.trust.verify.roothash import is_signature

BUILT_IN = frozenset({"ext4", "squashfs", "tmpfs"})


def content_hash(data: bytes) -> str:
    """Return what stands for the verity root hash of an image with these bytes."""
    return Digest.of(b"root" + data).hex


def sign_policy_text(text: bytes, key: rsa.RSAPrivateKey) -> bytes:
    """Return a policy with a signature of it, as IPE takes it."""
    return text + key.sign(text, padding.PKCS1v15(), hashes.SHA256())


@dataclass
class FakeKernel:
    """A kernel from its start to the next. ``firmware`` is the certificate that shim gave it.

    ``ipe`` is whether it has IPE at all, ``permissive`` whether that only talks. ``owners`` are
    what the machine's owner enrolled in shim besides, ``platform`` how the keys of the firmware's
    db describe themselves.
    """

    firmware: x509.Certificate
    owners: list[x509.Certificate] = field(default_factory=list)
    platform: tuple[str, ...] = ("tests: UEFI DB: d0c6f52986641118b8b7b22a1a53fc7c21a047e1",)
    ipe: bool = True
    permissive: bool = False
    mac_admin: bool = True
    policy: bytes = b""
    profiles: bytes = b""
    sysctls: dict[str, str] = field(default_factory=dict)
    modules: set[str] = field(default_factory=set)
    keyring: dict[str, bytes] = field(default_factory=dict)
    trusted: list[x509.Certificate] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.trusted.append(self.firmware)

    @property
    def enforcing(self) -> bool:
        """Whether only verified code is executed."""
        return bool(self.policy) and not self.permissive

    @property
    def locked(self) -> bool:
        """Whether no file of the first root is executed any more."""
        return self.enforcing and b"boot_verified" not in self.policy

    def enrol(self, certificate: x509.Certificate) -> None:
        """Do as somebody at the machine who has a key of their own: one that describes itself as
        one that is there takes its place."""
        self.owners.append(certificate)
        alike = [one for one in self.trusted if described(one) == described(certificate)]
        self.trusted = [one for one in self.trusted if one not in alike] + [certificate]

    def list_keys(self, name: str) -> tuple[str, ...]:
        """Return what a keyring of the firmware's keys holds. Raises: MissingError."""
        machine = dict.fromkeys(described(one) for one in (self.firmware, *self.owners))
        held = {".machine": tuple(machine), ".platform": self.platform}
        if name not in held:
            raise MissingError(f"this kernel has no keyring {name}")
        return held[name]

    def trust(self, der: bytes, what: str) -> None:
        """Put a certificate into the secondary keyring. Raises: SignatureError."""
        try:
            certificate = x509.load_der_x509_certificate(der)
        except ValueError as error:
            raise SignatureError(_refusal(what, "EBADMSG")) from error
        for issuer in self.trusted:
            try:
                certificate.verify_directly_issued_by(issuer)
            except (ValueError, TypeError, InvalidSignature):
                continue
            self.trusted.append(certificate)
            return
        raise SignatureError(_refusal(what, "ENOKEY"))

    def enforce(self, signed: bytes) -> None:
        """Load a policy and make it active. Raises: BootError, SignatureError."""
        if not self.ipe:
            raise BootError("the kernel runs without IPE; nothing would be enforced")
        self.policy = self._read(signed)
        self._require_enforced()

    def replace(self, signed: bytes) -> None:
        """Replace the policy by a newer one. Raises: BootError, SignatureError."""
        text = self._read(signed)
        if _version(text) <= _version(self.policy):
            raise SignatureError("the kernel refuses the IPE policy machineos: ESTALE")
        self.policy = text
        self._require_enforced()

    def load_profiles(self, compiled: bytes) -> None:
        """Load what AppArmor is to know. Raises: ToolError."""
        if not self.mac_admin:
            raise ToolError("the kernel refuses the AppArmor profiles: EPERM")
        self.profiles = compiled

    def _read(self, signed: bytes) -> bytes:
        key = self.firmware.public_key()
        assert isinstance(key, rsa.RSAPublicKey)
        length = key.key_size // 8
        try:
            text = signed[:-length]
            key.verify(signed[-length:], text, padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature as error:
            message = "the kernel refuses the IPE policy machineos: EKEYREJECTED"
            raise SignatureError(message) from error
        if not self.mac_admin:
            raise SignatureError("the kernel refuses the IPE policy machineos: EPERM")
        return text

    def _require_enforced(self) -> None:
        if self.permissive:
            raise BootError("the kernel has IPE in permissive mode")

    def open_verity(self, data: bytes, layer: Layer, signature: bytes) -> str:
        """Open a volume and return its type of file system.

        Raises: VerificationError, SignatureError.
        """
        kind = layer_type_of(layer)
        root_hash, known = layer.root_hash, map(_as_publisher, self.trusted)
        if not any(is_signature(signature, root_hash, one) for one in known):
            raise SignatureError(f"the kernel refuses the signature of root hash {root_hash}")
        if content_hash(data) != root_hash:
            raise VerificationError(f"does not match its root hash {root_hash}")
        return kind.filesystem

    def check_filesystem(self, kind: str) -> None:
        """Refuse to mount a type that nothing was loaded for. Raises: ToolError."""
        if kind not in BUILT_IN and not any(
            name.startswith(_module(kind)) for name in self.modules
        ):
            raise ToolError(f"mount {kind}: No such device")


def _version(text: bytes) -> list[int]:
    return [int(number) for number in policy_version(text).split(".")]


def described(certificate: x509.Certificate) -> str:
    """Return what the kernel calls a certificate: its subject, and its key's identifier."""
    name = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    key = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    return f"{name!s}: {key.hex()}"


def _module(kind: str) -> str:
    return {"iso9660": "isofs"}.get(kind, kind)


def _refusal(what: str, code: str) -> str:
    return (
        f"{what}: the kernel does not accept this certificate ({code}): "
        "no key that it trusts vouches for it"
    )


def _as_publisher(certificate: x509.Certificate) -> Publisher:
    der = certificate.public_bytes(Encoding.DER)
    return Publisher(UUID(int=0), "", der, Digest.of(der))
