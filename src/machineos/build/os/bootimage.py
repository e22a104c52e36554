"""The kernel image of one mode: which sections it has, what they say, and the TPM policy for it.

Values only: keys sign through a function that is handed in, and nothing here reads a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from machineos.build.os import uki
from machineos.build.os.workshop import flavour_of
from machineos.document.between.bootsettings import Mode, Settings, TpmKind
from machineos.trust.measure import tpm_policy
from machineos.trust.measure.pcr import predict_pcr7, predict_pcr14

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from machineos.build.os.initrdplan import Base
    from machineos.core.word import RootHash
    from machineos.trust.measure.pcr import SecureBootCerts

MODES: tuple[Mode, ...] = ("run", "install", "provision")
SHIM_PATH = "usr/lib/shim/shimx64.efi"
STUB_PATH = "usr/lib/systemd/boot/efi/linuxx64.efi.stub"
# What of our own a firmware or shim can revoke by generation (shim, SBAT.md).
SBAT_GENERATION = 1
COMMAND_LINE = (
    "console=tty0 console=ttyS0,115200n8 panic=10 oops=panic quiet loglevel=4 "
    # A kernel that hangs restarts, and nobody stops a watchdog. No watchdog.open_timeout: systemd
    # opens one, and where there is a second the kernel has to feed that for ever.
    "hardlockup_panic=1 nmi_watchdog=1 "
    "iTCO_wdt.nowayout=1 i6300esb.nowayout=1 sp5100_tco.nowayout=1 wdat_wdt.nowayout=1 "
    "lsm=landlock,lockdown,yama,integrity,apparmor,ipe lockdown=confidentiality "
    "apparmor=1 security=apparmor random.trust_cpu=on "
    # Else a process is given other code through /proc/PID/mem, whatever its pages allow.
    "proc_mem.force_override=never "
    # Both are built in. With them a process serves the files of a device that is signed (fuseblk).
    "initcall_blacklist=fuse_init,virtio_fs_init "
    # Else no refusal is ever seen; as many records wait as a burst has.
    "audit=1 audit_backlog_limit=1024 "
    # The filter of a service cannot look at sockets by calls of 32 bits (service.plan.seccomp).
    "ia32_emulation=0 "
    # A device writes where its driver lets it, and no longer: the default takes back pages late.
    "intel_iommu=on iommu.strict=1 "
    # Else whoever sets fw_cfg or SMBIOS strings hands systemd units and rules to run.
    "systemd.import_credentials=no"
)
# A task that holds a processor for two thresholds (seconds) is a hang. Not for guests: one that its
# host stops or restores finds that each has been held, since only its clock went on (tried).
HARDWARE = "softlockup_panic=1 watchdog_thresh=30"


@dataclass(frozen=True, slots=True)
class Options:
    """``policy_version``: four digits, raised to lock out older images. ``banner``: what a variant
    for tests says about itself on every boot; empty for the ordinary one. ``tpm_kind``: the kind
    of TPM that may be provisioned, empty for any."""

    policy_version: str = "0001"
    epoch: int = 0
    banner: str = ""
    tpm_kind: TpmKind = ""


def image_name(mode: Mode) -> str:
    """Return the file name of a mode's image; the predecessor's for ``run``."""
    return "kernel.efi" if mode == "run" else f"{mode}.efi"


def command_line(kernel: str) -> str:
    """Return what the kernel of this release is started with."""
    return COMMAND_LINE if flavour_of(kernel) == "cloud" else f"{COMMAND_LINE} {HARDWARE}"


def settings_of(mode: Mode, base: Base, modules: RootHash, options: Options) -> Settings:
    """Return what the initrd is told; ``modules`` is the volume of its kernel's modules."""
    return Settings(
        mode=mode,
        policy_version=options.policy_version,
        command_line=command_line(base.kernel),
        kernel=base.kernel,
        modules_volume=str(modules),
        epoch=options.epoch,
        modules=base.modules,
        drivers=base.drivers,
        filesystems=base.filesystems,
        watchdogs=base.watchdogs,
        banner=options.banner,
        tpm_kind=options.tpm_kind if mode == "provision" else "",
    )


def sections_of(
    kernel: str,
    *,
    linux: bytes,
    archive: bytes,
    anchors: bytes,
    policy_key: bytes,
    options: Options,
    microcode: bytes = b"",
) -> dict[str, bytes]:
    """Return the sections of an image, without policy and SBAT.

    ``archive`` and ``anchors`` are the two parts of the initrd, ``policy_key`` (PEM) the key that
    the TPM believes about boot images, ``microcode`` an archive that the stub puts before them.
    """
    early = {".ucode": microcode} if microcode else {}
    return {
        ".osrel": _os_release(options),
        ".cmdline": command_line(kernel).encode() + b"\0",
        ".uname": kernel.encode(),
        ".pcrpkey": policy_key,
        ".initrd": _aligned(archive) + anchors,
        **early,
        ".linux": linux,
    }


def measured(sections: Mapping[str, bytes], sbat: bytes) -> bytes:
    """Return the PCR 11 that the image gives."""
    return uki.measure({**sections, ".sbat": sbat})


def with_policies(
    sections: Mapping[str, bytes], policies: tuple[tpm_policy.SignedPolicy, ...]
) -> dict[str, bytes]:
    """Return the sections with the policies, in the order of the file: the kernel goes last, the
    stub may then let it use the memory behind it."""
    whole = {**sections, ".pcrsig": tpm_policy.render_policies(policies)}
    whole[".linux"] = whole.pop(".linux")
    return whole


def boot_policies(
    pcr11: bytes,
    certs: SecureBootCerts,
    uki_certificate: bytes,
    policy_key: bytes,
    options: Options,
    sign: Callable[[bytes], bytes],
) -> tuple[tpm_policy.SignedPolicy, ...]:
    """Return the signed policies under which the TPM gives its secrets to one image: one for each
    phase of a boot.

    ``policy_key`` is a PEM, whose private half is behind ``sign``.
    """
    key = tpm_policy.policy_key(policy_key)
    # Nothing is added to a UKI from outside: not to its command line (12), no extension (13).
    values = {
        7: predict_pcr7(certs, uki_certificate),
        11: pcr11,
        12: bytes(32),
        13: bytes(32),
        14: predict_pcr14(uki_certificate),
    }
    return tuple(
        signed_policy(tpm_policy.in_phase(values, phase), phase, key, options.policy_version, sign)
        for phase in tpm_policy.PHASES
    )


def signed_policy(
    values: Mapping[int, bytes],
    phase: tpm_policy.Phase,
    key: tpm_policy.PolicyKey,
    version: str,
    sign: Callable[[bytes], bytes],
) -> tpm_policy.SignedPolicy:
    """Return the signed policy of an image for one phase, in which the PCRs have these values."""
    digest = tpm_policy.boot_policy(values, version, tpm_policy.version_index(key).name)
    return tpm_policy.SignedPolicy(
        pcrs=tuple(values),
        fingerprint=key.fingerprint,
        policy=digest,
        signature=tpm_policy.sign_policy(digest, sign, tpm_policy.policy_ref(phase)),
        version=version,
        purpose=phase,
        values=tuple(values.values()),
    )


def sbat_text(stub: bytes) -> bytes:
    """Return the stub's own SBAT text with our line added: shim refuses what either revokes."""
    own = uki.read_sections(stub)[".sbat"].rstrip(b"\0").rstrip(b"\n")
    line = f"machineos,{SBAT_GENERATION},machineOS,machineos,{SBAT_GENERATION},docs/boot"
    return own + b"\n" + line.encode() + b"\n"


def _os_release(options: Options) -> bytes:
    variant = f'VARIANT="{options.banner}"\n' if options.banner else ""
    text = f'NAME="machineOS"\nID=machineos\nVERSION_ID={options.policy_version}\n{variant}'
    return text.encode()


def _aligned(archive: bytes) -> bytes:
    return archive + bytes(-len(archive) % 4)
