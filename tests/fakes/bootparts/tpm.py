"""A TPM as the boot sees it: PCRs, what is sealed under signed policies, and the door.

Policies are checked as the TPM does: digest recomputed from the PCRs that are there, signature by
the key that the secrets were sealed for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from machineos.boot.steps import ProvisionTpm
from machineos.core.secret import Secret
from machineos.errors import BootError, ConflictError, PolicyError, TpmError
from machineos.host.tpm.wire import sha256
from machineos.trust.measure.tpm_policy import (
    BOOT_PCRS,
    Phase,
    SignedPolicy,
    boot_policy,
    check_version,
    policy_key,
    policy_ref,
    version_index,
)
from machineos.trust.seal.choice import DOOR, DOORS, check_raise
from machineos.trust.seal.layout import LAYOUT_VERSION, PHASES, Index
from machineos.trust.seal.tpmkind import Maker


def never(_what: str) -> None:
    """Hear of a write, and let it be."""


@dataclass
class FakeTpm:
    """One TPM. ``nv`` outlives the power; PCRs and the open session do not. ``maker`` and the
    kernel's ``driver`` tell what kind it is.

    Defects: ``absent``; ``stuck`` (PCRs do not change, and it says so); ``lying`` (its secrets can
    be read whatever the PCRs are).
    """

    nv: dict[Index, bytes] = field(default_factory=dict)
    sealed_for: bytes = b""  # the public key (PEM) whose policies open the secrets
    owned: bool = False  # a lockout password is set, the last act of provisioning
    maker: Maker = field(default_factory=lambda: Maker("IBM", "SW TPM"))
    driver: str = "tpm_crb"
    absent: bool = False
    stuck: bool = False
    lying: bool = False
    writes: int = 0
    pcrs: dict[int, bytes] = field(default_factory=dict)
    _policies: tuple[SignedPolicy, ...] = ()
    _session: dict[Phase, SignedPolicy] | None = None

    @property
    def provisioned(self) -> bool:
        """Whether everything is in place."""
        return self.owned and set(self.nv) == set(Index)

    def power_cycle(self) -> None:
        """Reset the chip."""
        self.pcrs = {number: bytes(32) for number in range(16)}
        self._session = None

    def extend(self, pcr: int, value: bytes) -> None:
        """Extend a PCR."""
        if not self.stuck:
            self.pcrs[pcr] = sha256(self.pcrs[pcr], value)

    def open(
        self, policies: tuple[SignedPolicy, ...], key_pem: bytes, phase: Phase = "first"
    ) -> None:
        """Begin a session under the one of the policies that fits."""
        self._session = None
        self._there()
        if not self.nv or not self.sealed_for:
            raise BootError(
                "the TPM is not provisioned, or was cleared: it has no storage root key"
            )
        key = policy_key(key_pem)
        ours = tuple(
            policy
            for policy in policies
            if policy.fingerprint == key.fingerprint and set(BOOT_PCRS) <= set(policy.pcrs)
        )
        if not any(policy.version for policy in ours):
            raise PolicyError("this UKI carries no TPM policy signed with the product's key")
        self._policies = ours
        self._session = {phase: self._choose(phase, key_pem)}

    def _choose(self, phase: Phase, key_pem: bytes) -> SignedPolicy:
        """Return the policy that fits now, if its signature is one for this phase."""
        ours = [one for one in self._policies if (one.purpose == "second") == (phase == "second")]
        name = version_index(policy_key(self.sealed_for)).name
        fitting = {
            policy.version: policy
            for policy in ours
            if policy.version and self._now(policy, policy.version, name) == policy.policy
        }
        if not fitting and not (self.lying and ours):
            raise PolicyError(self._difference(phase))
        chosen = fitting[max(fitting)] if fitting else ours[0]
        floor = self.nv[Index.POLICY_VERSION].decode()
        if (chosen.version or "") < floor:
            raise PolicyError(
                f"this UKI is too old: its policy version is {chosen.version}, the TPM accepts "
                f"{floor} and newer"
            )
        self._verify(chosen, phase, key_pem)
        return chosen

    def read(self, index: Index, key_pem: bytes) -> Secret:
        """Return a secret, in the session."""
        self._prove(index, key_pem)
        return Secret(self.nv[index])

    def _prove(self, index: Index, key_pem: bytes) -> SignedPolicy:
        """Return the policy that the session fulfils for an index, if it does so now."""
        if self._session is None:
            raise BootError("the TPM was not asked to open what it seals")
        if index not in self.nv:
            raise BootError(f"the TPM is not provisioned: it has no {index.name.lower()}")
        if key_pem != self.sealed_for:
            raise PolicyError(f"{index.name.lower()} was sealed for another product's key")
        phase = PHASES[index]
        if phase not in self._session:
            self._session[phase] = self._choose(phase, key_pem)
        policy = self._session[phase]
        name = version_index(policy_key(self.sealed_for)).name
        now = self._now(policy, policy.version or "", name)
        if now != policy.policy and not self.lying:
            raise PolicyError("this boot does not fulfil its signed policy: PCR changed")
        return policy

    def read_floor(self) -> str:
        """Return the floor, in the session."""
        if self._session is None:
            raise BootError("the TPM was not asked to open what it seals")
        return self.nv[Index.POLICY_VERSION].decode()

    def raise_floor(
        self, version: str, key_pem: bytes, tick: Callable[[str], None] = never
    ) -> None:
        """Raise the floor, in the second phase."""
        check_version(version)
        if not check_raise(version, present=self.read_floor()):
            return
        policy = self._prove(Index.POLICY_VERSION, key_pem)
        if version > (policy.version or ""):
            raise PolicyError(
                f"policy version {version} would lock out this UKI, which has {policy.version}"
            )
        self.nv[Index.POLICY_VERSION] = version.encode()
        self.writes += 1
        tick("floor")

    def close(self) -> None:
        """End the session."""
        self._session = None

    def close_door(self, phase: Phase) -> None:
        """Extend what the secrets of a phase depend on."""
        self._there()
        if not self.sealed_for:
            raise BootError(
                "the TPM is not provisioned, or was cleared: it has no storage root key"
            )
        before = dict(self.pcrs)
        for pcr, constant in DOORS[phase].items():
            self.extend(pcr, constant)
        for pcr, constant in DOORS[phase].items():
            if self.pcrs[pcr] != sha256(before[pcr], constant):
                raise BootError(f"PCR {pcr} did not change: the TPM's secrets are still readable")

    def read_maker(self) -> Maker:
        """Say who made it."""
        self._there()
        return self.maker

    def provision(self, given: ProvisionTpm, tick: Callable[[str], None] = never) -> None:
        """Clear it and fill it; ``tick`` hears of each write that lasts, after it was made."""
        self._there()
        policy_key(given.policy_key)
        check_version(given.policy_version)
        if self.provisioned:
            raise ConflictError("the TPM is provisioned already")
        if self.owned:
            raise ConflictError("the TPM has an owner: its lockout password is set")

        def write(what: str) -> None:
            self.writes += 1
            tick(what)

        self.nv, self.sealed_for = {}, b""
        write("clear")
        self.sealed_for = given.policy_key
        write("storage root key")
        made = sha256(given.certificate, str(self.writes).encode())
        for index, data in (
            (Index.ADMIN_PASSWORD, b"trust-" + made[:13].hex().encode()),
            (Index.SUDI_CERT, given.certificate),
            (Index.SUDI_KEY, given.private_key.reveal()),
            (Index.STORAGE_KEY, sha256(b"storage", made)),
            (Index.CONFIGURATION_KEY, sha256(b"configuration", made)),
            (Index.POLICY_VERSION, given.policy_version.encode()),
            (Index.LAYOUT, LAYOUT_VERSION),
        ):
            self.nv[index] = data
            write(index.name)
        self.owned = True
        write("lockout password")

    def _there(self) -> None:
        if self.absent:
            raise TpmError("no TPM: /dev/tpmrm0 does not exist")

    def _now(self, policy: SignedPolicy, version: str, name: bytes) -> bytes:
        return boot_policy({pcr: self.pcrs[pcr] for pcr in policy.pcrs}, version, name)

    def _difference(self, phase: Phase) -> str:
        reason = ""
        for policy in self._policies:
            expected = dict(zip(policy.pcrs, policy.values, strict=True))
            if all(self.pcrs[pcr] == sha256(expected[pcr], DOOR[pcr]) for pcr in DOOR):
                return "the initrd has been left: the TPM's secrets can be read only inside it"
            wrong = [f"PCR {pcr}" for pcr in expected if self.pcrs[pcr] != expected[pcr]]
            other = (policy.purpose == "second") != (phase == "second")
            if other and not wrong:
                return f"the first door is {'closed' if phase == 'first' else 'still open'}"
            if wrong and not other:
                reason = reason or f"{' and '.join(wrong)} not as this product signed"
        if reason:
            return reason
        return "the TPM was provisioned for another product: its policy version index is not ours"

    def _verify(self, policy: SignedPolicy, phase: Phase, key_pem: bytes) -> None:
        key = serialization.load_pem_public_key(key_pem)
        assert isinstance(key, rsa.RSAPublicKey)
        message = policy.policy + policy_ref(phase)
        try:
            key.verify(policy.signature, message, padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature as error:
            raise PolicyError("the signature of this UKI's TPM policy is wrong") from error
