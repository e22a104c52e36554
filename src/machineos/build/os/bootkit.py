"""The bootkit: shim and kernel image of one keyset, with everything signed that the boot checks.

``build_images`` makes, for each mode, a UKI signed by the UKI key whose ``.pcrsig`` section holds
the TPM policy for exactly that UKI, and shim with the UKI certificate inside, signed by db. The
folder ``<keyset>/bootkit`` has the predecessor's file names; the OCI layout in it is what
manifests refer to.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from machineos.build.os import initrd, uki
from machineos.core.files import write_atomic
from machineos.document.between.bootsettings import Mode, Settings
from machineos.host.kernel import ipe
from machineos.host.pack import shim
from machineos.trust.keys import efi
from machineos.trust.keys.enrolled import certs_of
from machineos.trust.keys.signer import FileSigner
from machineos.trust.measure import secureboot, tpm_policy
from machineos.trust.measure.pcr import predict_pcr7

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from machineos.core.secret import Secret
    from machineos.trust.keys.keyset import Keyset

MODES: tuple[Mode, ...] = ("run", "install", "provision")
SHIM_PATH = "usr/lib/shim/shimx64.efi"
STUB_PATH = "usr/lib/systemd/boot/efi/linuxx64.efi.stub"
# What of our own a firmware or shim can revoke by generation (shim, SBAT.md).
SBAT_GENERATION = 1
_COMMAND_LINE = (
    "console=tty0 console=ttyS0,115200n8 panic=10 oops=panic quiet loglevel=4 "
    "lsm=landlock,lockdown,yama,integrity,apparmor,bpf,ipe lockdown=integrity "
    "apparmor=1 security=apparmor random.trust_cpu=on audit=0 "
    # Else whoever sets fw_cfg or SMBIOS strings hands systemd units and rules to run.
    "systemd.import_credentials=no"
)


@dataclass(frozen=True, slots=True)
class Options:
    """``policy_version``: four digits, raised to lock out older images. ``banner``: what a variant
    for tests says about itself on every boot; empty for the ordinary one."""

    policy_version: str = "0001"
    epoch: int = 0
    banner: str = ""


@dataclass(frozen=True, slots=True)
class Anchored:
    """One product line: its keyset and how to open its keys."""

    keyset: Keyset
    passphrase: Secret | None = None

    def signer(self, role: str) -> FileSigner:
        """Return the signer of one role."""
        return FileSigner.open(self.keyset.key(role), self.passphrase)


def build_images(
    anchored: Anchored,
    root: Path,
    base: initrd.Base,
    output: Path,
    *,
    work: Path,
    options: Options,
    modes: Iterable[Mode] = MODES,
    say: Callable[[str], None] = lambda _text: None,
) -> dict[Mode, Path]:
    """Write ``shim.efi`` and one UKI per mode into ``output`` and return the paths of the UKIs.

    ``root`` is the Debian tree with kernel, stub and shim. Raises: ToolError, SignatureError.
    """
    output.mkdir(parents=True, exist_ok=True)
    build_shim(anchored, root, output / "shim.efi", work=work)
    linux = (root / f"boot/vmlinuz-{base.kernel}").read_bytes()
    stub = (root / STUB_PATH).read_bytes()
    archive = base.archive.read_bytes()
    names: dict[Mode, Path] = {}
    for mode in modes:
        say(f"boot image for {mode}")
        settings = Settings(
            mode=mode,
            policy_version=options.policy_version,
            command_line=_COMMAND_LINE,
            kernel=base.kernel,
            epoch=options.epoch,
            modules=base.modules,
            drivers=base.drivers,
            filesystems=base.filesystems,
            banner=options.banner,
        )
        second = anchors_archive(anchored, settings, work=work, epoch=options.epoch)
        sections = {
            ".osrel": _os_release(options),
            ".cmdline": _COMMAND_LINE.encode() + b"\0",
            ".uname": base.kernel.encode(),
            ".pcrpkey": policy_public_key(anchored),
            ".initrd": _aligned(archive) + second,
            ".linux": linux,
        }
        name = "kernel.efi" if mode == "run" else f"{mode}.efi"
        names[mode] = output / name
        sign_uki(anchored, stub, sections, names[mode], work=work, mode=mode, options=options)
    return names


def build_shim(anchored: Anchored, root: Path, target: Path, *, work: Path) -> None:
    """Write shim with the UKI certificate inside, signed by db. Raises: ToolError."""
    certificate = anchored.keyset.key("uki-production").certificate_der()
    unsigned = work / "shim-unsigned.efi"
    shim.embed(root / SHIM_PATH, unsigned, secureboot.vendor_cert_section(certificate))
    efi.sign_efi(unsigned, target, anchored.keyset.key("uefi-db"), passphrase=anchored.passphrase)


def sign_uki(
    anchored: Anchored,
    stub: bytes,
    sections: dict[str, bytes],
    target: Path,
    *,
    work: Path,
    mode: Mode,
    options: Options,
) -> None:
    """Write the UKI of ``sections``, with its signed TPM policy, signed. Raises: ToolError."""
    sbat = sbat_text(stub)
    measured = uki.measure({**sections, ".sbat": sbat})
    policies = () if mode == "provision" else (boot_policy(anchored, measured, options),)
    whole = {**sections, ".pcrsig": tpm_policy.render_policies(policies)}
    # The kernel goes last: the stub may then let it use the memory behind it.
    whole[".linux"] = whole.pop(".linux")
    unsigned = work / f"{mode}-unsigned.efi"
    write_atomic(unsigned, uki.assemble(stub, whole, sbat=sbat))
    efi.sign_efi(
        unsigned, target, anchored.keyset.key("uki-production"), passphrase=anchored.passphrase
    )
    unsigned.unlink()


def boot_policy(anchored: Anchored, pcr11: bytes, options: Options) -> tpm_policy.SignedPolicy:
    """Return the signed policy under which the TPM gives its secrets to one UKI."""
    certs, uki_certificate = certs_of(anchored.keyset)
    pcr7 = predict_pcr7(certs, uki_certificate)
    key = tpm_policy.policy_key(policy_public_key(anchored))
    values = {7: pcr7, 11: pcr11, 12: bytes(32)}
    digest = tpm_policy.boot_policy(
        values, options.policy_version, tpm_policy.version_index(key).name
    )
    return tpm_policy.SignedPolicy(
        pcrs=tuple(values),
        fingerprint=key.fingerprint,
        policy=digest,
        signature=tpm_policy.sign_policy(digest, anchored.signer("tpmpol-luks").sign),
        version=options.policy_version,
        purpose="luks",
        values=tuple(values.values()),
    )


def policy_public_key(anchored: Anchored, role: str = "tpmpol-luks") -> bytes:
    """Return the public half of a policy key (PEM)."""
    from cryptography.hazmat.primitives import serialization

    key = anchored.keyset.key(role).certificate().public_key()
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def anchors_archive(anchored: Anchored, settings: Settings, *, work: Path, epoch: int) -> bytes:
    """Return the second part of the initrd: settings and trust anchors of this keyset."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    keyset = anchored.keyset
    cross = x509.load_pem_x509_certificate(keyset.cross_certificate_pem())
    files = {
        "settings.json": msgspec.json.encode(settings),
        "manifest-ca.pem": keyset.key("manifest-ca").certificate_pem(),
        "manifest-ca-uki.der": cross.public_bytes(serialization.Encoding.DER),
        "sudi-ca.pem": keyset.key("sudi-ca").certificate_pem(),
        "tpmpol-luks.pem": policy_public_key(anchored),
        "tpmpol-admin.pem": policy_public_key(anchored, "tpmpol-admin"),
        "ipe-policy.p7s": anchored.signer("uefi-db").sign_content(
            ipe.policy_text(version=f"1.{int(settings.policy_version)}.0")
        ),
    }
    stage = work / "anchors"
    shutil.rmtree(stage, ignore_errors=True)
    folder = stage / "usr/lib/machineos/boot"
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    archive = work / "anchors.cpio.zst"
    initrd.pack(stage, archive, epoch=epoch, compress=True)
    return archive.read_bytes()


def bootkit_tree(root: Path, kernel: str, images: Path, target: Path) -> None:
    """Lay out the content of the bootkit image: signed binaries and the kernel's modules."""
    shutil.rmtree(target, ignore_errors=True)
    binaries = target / "bootkit"
    binaries.mkdir(parents=True)
    for name in ("shim.efi", "kernel.efi"):
        shutil.copyfile(images / name, binaries / name)
        (binaries / name).chmod(0o644)
    modules = target / "usr/lib/modules"
    shutil.copytree(root / "usr/lib/modules" / kernel, modules / kernel, symlinks=True)


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
