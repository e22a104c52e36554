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
from machineos.build.os.bootimage import (
    MODES,
    SHIM_PATH,
    STUB_PATH,
    Options,
    boot_policies,
    image_name,
    measured,
    sbat_text,
    sections_of,
    settings_of,
    with_policies,
)
from machineos.core.files import read_bounded, write_atomic
from machineos.core.word import RootHash
from machineos.host.kernel.ipepolicy import boot_policy_text, closed_policy_text
from machineos.host.pack import shim
from machineos.trust.keys import efi
from machineos.trust.keys.enrolled import certs_of
from machineos.trust.keys.signer import FileSigner
from machineos.trust.measure import secureboot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from machineos.build.os.initrdplan import Base
    from machineos.core.secret import Secret
    from machineos.document.between.bootsettings import Mode, Settings
    from machineos.trust.keys.keyset import Keyset
    from machineos.trust.measure import tpm_policy


@dataclass(frozen=True, slots=True)
class Anchored:
    """One product line: its keyset and how to open its keys."""

    keyset: Keyset
    passphrase: Secret | None = None

    def signer(self, role: str) -> FileSigner:
        """Return the signer of one role."""
        return FileSigner.open(self.keyset.key(role), self.passphrase)


def require_keys(anchored: Anchored) -> None:
    """Open all that a bootkit is signed with: what is missing is said before any work.

    Raises: MissingError, UsageError (passphrase), SignatureError, DocumentError.
    """
    for role in ("uefi-db", "uki-production", "tpmpol-luks"):
        anchored.signer(role)
    anchored.keyset.cross_certificate_pem()


def build_images(
    anchored: Anchored,
    root: Path,
    base: Base,
    output: Path,
    *,
    modules: RootHash,
    work: Path,
    options: Options,
    microcode: bytes = b"",
    modes: Iterable[Mode] = MODES,
    say: Callable[[str], None] = lambda _text: None,
) -> dict[Mode, Path]:
    """Write ``shim.efi`` and one UKI per mode into ``output`` and return the paths of the UKIs.

    ``root`` is the Debian tree with kernel, stub and shim, ``modules`` the volume with the modules
    of that kernel, ``microcode`` an archive of it, or nothing. Raises: ToolError, SignatureError.
    """
    output.mkdir(parents=True, exist_ok=True)
    build_shim(anchored, root, output / "shim.efi", work=work)
    linux = (root / f"boot/vmlinuz-{base.kernel}").read_bytes()
    stub = (root / STUB_PATH).read_bytes()
    archive = base.archive.read_bytes()
    names: dict[Mode, Path] = {}
    for mode in modes:
        settings = settings_of(mode, base, modules, options)
        sections = sections_of(
            base.kernel,
            linux=linux,
            archive=archive,
            anchors=anchors_archive(anchored, settings, work=work, epoch=options.epoch),
            policy_key=policy_public_key(anchored),
            options=options,
            microcode=microcode,
        )
        names[mode] = output / image_name(mode)
        sign_uki(anchored, stub, sections, names[mode], work=work, mode=mode, options=options)
        say(f"boot image for {mode}: {names[mode].stat().st_size / 1e6:.1f} MB")
    return names


def build_shim(anchored: Anchored, root: Path, target: Path, *, work: Path) -> None:
    """Write shim with the UKI certificate inside, signed by db. Raises: ToolError."""
    certificate = anchored.keyset.key("uki-production").certificate_der()
    unsigned = work / "shim-unsigned.efi"
    debian = read_bounded(root / SHIM_PATH, shim.MAX_SIZE)
    section = secureboot.vendor_cert_section(certificate)
    write_atomic(unsigned, shim.with_vendor_cert(debian, section))
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
    """Write the UKI of ``sections``, with its signed TPM policies, signed. Raises: ToolError."""
    sbat = sbat_text(stub)
    pcr11 = measured(sections, sbat)
    policies = () if mode == "provision" else boot_policies_of(anchored, pcr11, options)
    whole = with_policies(sections, policies)
    unsigned = work / f"{mode}-unsigned.efi"
    write_atomic(unsigned, uki.assemble(stub, whole, sbat=sbat))
    efi.sign_efi(
        unsigned, target, anchored.keyset.key("uki-production"), passphrase=anchored.passphrase
    )
    unsigned.unlink()


def boot_policies_of(
    anchored: Anchored, pcr11: bytes, options: Options
) -> tuple[tpm_policy.SignedPolicy, ...]:
    """Return the policies for one UKI, signed by the keyset."""
    certs, uki_certificate = certs_of(anchored.keyset)
    sign = anchored.signer("tpmpol-luks").sign
    public = policy_public_key(anchored)
    return boot_policies(pcr11, certs, uki_certificate, public, options, sign)


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
    minor, modules = int(settings.policy_version), RootHash(settings.modules_volume)
    db = anchored.signer("uefi-db")
    cross = x509.load_pem_x509_certificate(keyset.cross_certificate_pem())
    files = {
        "settings.json": msgspec.json.encode(settings),
        "manifest-ca.pem": keyset.key("manifest-ca").certificate_pem(),
        "manifest-ca-uki.der": cross.public_bytes(serialization.Encoding.DER),
        "sudi-ca.pem": keyset.key("sudi-ca").certificate_pem(),
        "tpmpol-luks.pem": policy_public_key(anchored),
        "tpmpol-admin.pem": policy_public_key(anchored, "tpmpol-admin"),
        "ipe-boot.p7s": db.sign_content(boot_policy_text(minor, modules)),
        "ipe-closed.p7s": db.sign_content(closed_policy_text(minor, modules)),
        "apparmor.bin": b"",  # "The cage" brings profiles
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


def boot_files_tree(images: Path, target: Path) -> None:
    """Lay out the content of the bootkit's first layer: what firmware starts, signed."""
    shutil.rmtree(target, ignore_errors=True)
    binaries = target / "bootkit"
    binaries.mkdir(parents=True)
    for name in ("shim.efi", "kernel.efi"):
        shutil.copyfile(images / name, binaries / name)
        (binaries / name).chmod(0o644)
