"""Facts and a machine for the tests of sealing: firmware and stub that measure, a TPM."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

from fakes.swtpm import SoftwareTpm
from machineos.core.secret import Secret
from machineos.host.tpm.commands import Tpm
from machineos.host.tpm.transport import Transport
from machineos.trust.measure.tpm_policy import (
    PHASES,
    Phase,
    Purpose,
    SignedPolicy,
    boot_policy,
    in_phase,
    policy_key,
    policy_ref,
    sign_policy,
    version_index,
)
from machineos.trust.seal.unseal import Index, Report, close_door, provision, unseal
from vectors.certificates import key as rsa_key

SUDI_CERT = b"-----BEGIN CERTIFICATE-----\n" + b"public but ours " * 100
SUDI_KEY = b"-----BEGIN PRIVATE KEY-----\n" + hashlib.shake_128(b"sudi").digest(1676)
SECURE_BOOT = hashlib.sha256(b"secure boot with our keys").digest()
NEW_DBX = hashlib.sha256(b"secure boot after a dbx update").digest()
UKI = hashlib.sha256(b"this UKI").digest()
OTHER_UKI = hashlib.sha256(b"another UKI").digest()
NOTHING_MORE = {13: bytes(32), 14: bytes(32)}
# In the order in which a boot may read them: of the first phase, then of the second.
FIRST_SECRETS = (Index.STORAGE_KEY, Index.CONFIGURATION_KEY)
SECOND_SECRETS = (Index.SUDI_CERT, Index.SUDI_KEY)
SECRETS = (*FIRST_SECRETS, *SECOND_SECRETS)


def pem(label: str) -> bytes:
    return (
        rsa_key(label)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


LUKS, ADMIN = pem("tpmpol-luks"), pem("tpmpol-admin")


def measured(event: bytes) -> bytes:
    return hashlib.sha256(bytes(32) + event).digest()


def signed(
    secure_boot: bytes = SECURE_BOOT,
    uki: bytes = UKI,
    version: str = "0001",
    *,
    by: str = "tpmpol-luks",
    pcr12: bytes | None = None,
    more: Mapping[int, bytes] | None = None,
    hints: bool = True,
    phase: Phase = "first",
    ref: Purpose | None = None,
) -> SignedPolicy:
    """Return the policy of one UKI for a phase as the builder would sign it, or with the reference
    of another (``ref``)."""
    values = {7: measured(secure_boot), 11: measured(uki)}
    if pcr12 is not None:
        values[12] = pcr12
    values |= more or {}
    values = in_phase(values, phase)
    digest = boot_policy(values, version, version_index(policy_key(LUKS)).name)

    def sign(message: bytes) -> bytes:
        return rsa_key(by).sign(message, padding.PKCS1v15(), hashes.SHA256())

    return SignedPolicy(
        pcrs=tuple(values),
        fingerprint=policy_key(pem(by)).fingerprint,
        policy=digest,
        signature=sign_policy(digest, sign, policy_ref(ref or phase)),
        version=version,
        purpose=phase,
        values=tuple(values.values()) if hints else (),
    )


def both(
    secure_boot: bytes = SECURE_BOOT,
    uki: bytes = UKI,
    version: str = "0001",
    *,
    by: str = "tpmpol-luks",
    pcr12: bytes | None = None,
    more: Mapping[int, bytes] | None = None,
) -> tuple[SignedPolicy, ...]:
    """Return the policies of one UKI for both phases."""
    return tuple(
        signed(secure_boot, uki, version, by=by, pcr12=pcr12, more=more, phase=phase)
        for phase in PHASES
    )


@dataclass
class Machine:
    """A machine with a provisioned TPM; ``boot`` is a reset and what firmware and stub measure."""

    chip: SoftwareTpm
    report: Report
    pinned: bool = True

    def boot(self, secure_boot: bytes = SECURE_BOOT, uki: bytes = UKI) -> None:
        self.chip.power_cycle()
        with self.chip.open() as tpm:
            tpm.pcr_extend(7, secure_boot)
            tpm.pcr_extend(11, uki)

    def close(self, phase: Phase = "first") -> None:
        """End a phase of the boot."""
        with self.chip.open() as tpm:
            close_door(tpm, phase, srk_name=self.report.srk_name)

    def unseal(
        self,
        index: Index = Index.CONFIGURATION_KEY,
        policies: Sequence[SignedPolicy] | None = None,
        key: bytes = LUKS,
        between: Callable[[Transport], Transport] = lambda wire: wire,
    ) -> bytes:
        """Return a secret in clear, for a test to look at."""
        with self.chip.open(between) as tpm:
            return unseal(
                tpm,
                index,
                policies=both() if policies is None else policies,
                policy_key_pem=key,
                srk_name=self.report.srk_name if self.pinned else None,
            ).reveal()

    def admin_password(self) -> bytes:
        return self.unseal(Index.ADMIN_PASSWORD, [signed(by="tpmpol-admin")], ADMIN)


def give(
    tpm: Tpm,
    *,
    luks_policy_key: bytes = LUKS,
    admin_policy_key: bytes = ADMIN,
    sudi_cert: bytes = SUDI_CERT,
    sudi_key: bytes = SUDI_KEY,
    policy_version: str = "0001",
    again: bool = False,
    lockout_auth: bytes = b"",
) -> Report:
    """Provision a TPM with what most tests want."""
    return provision(
        tpm,
        luks_policy_key=luks_policy_key,
        admin_policy_key=admin_policy_key,
        sudi_cert=sudi_cert,
        sudi_key=Secret(sudi_key),
        random=os.urandom,
        policy_version=policy_version,
        again=again,
        lockout_auth=Secret(lockout_auth),
    )
