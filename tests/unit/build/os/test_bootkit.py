"""shim and kernel images of one keyset: signed, measured, and bound to each other."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import msgspec
import pefile
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from machineos.build.os import bootimage, bootkit, initrdplan, uki
from machineos.core.run import run
from machineos.core.word import RootHash
from machineos.document.between.bootsettings import Settings
from machineos.host.kernel.ipepolicy import boot_policy_text, closed_policy_text
from machineos.host.pack import shim
from machineos.trust.keys.keyset import Keyset
from machineos.trust.measure import tpm_policy
from machineos.trust.measure.pcr import predict_pcr14
from vectors.pe import efi_binary
from waiting import PATIENCE

pytestmark = [
    pytest.mark.tool("sbsign"), pytest.mark.tool("sbverify"), pytest.mark.tool("cpio"),
    pytest.mark.tool("zstd"),
]  # fmt: skip
VOLUME = RootHash("ab" * 32)
KERNEL = "6.12.1-test"
SBAT = b"sbat,1,SBAT Version,sbat,1,https://x\nsystemd-stub,1,x,systemd,257,https://y\n"


def shim_binary() -> bytes:
    """A binary with shim's section, whose long name stands in the string table."""
    content = bytes(8192)
    binary = bytearray(efi_binary(extra=((b".sbat", b"sbat,1\n"), (b"/4", content))))
    binary[0x40 + 12 : 0x40 + 20] = len(binary).to_bytes(4, "little") + bytes(4)
    table = b".vendor_cert\0"
    return bytes(binary) + (4 + len(table)).to_bytes(4, "little") + table


@pytest.fixture(scope="module")
def anchored(one: Keyset) -> bootkit.Anchored:
    return bootkit.Anchored(one)


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with the files of Debian's packages that are read, each as small as can be."""
    root = tmp_path_factory.mktemp("debian")
    stub = efi_binary(extra=((b".sbat", SBAT.ljust(1024, b"\0")),))
    for name, data in (
        (bootimage.SHIM_PATH, shim_binary()), (bootimage.STUB_PATH, stub),
        (f"boot/vmlinuz-{KERNEL}", b"MZ kernel" * 1000),
        (f"usr/lib/modules/{KERNEL}/modules.dep", b"x:"),
    ):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    (root / "base.cpio.zst").write_bytes(b"initrd base")
    return root


@pytest.fixture(scope="module")
def built(
    anchored: bootkit.Anchored, debian: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    output, work = tmp_path_factory.mktemp("out"), tmp_path_factory.mktemp("work")
    base = initrdplan.Base(
        debian / "base.cpio.zst", KERNEL, ("loop.ko",), (), {"vfat": ("vfat.ko",)}
    )
    bootkit.build_images(
        anchored, debian, base, output, modules=VOLUME, work=work,
        options=bootimage.Options(policy_version="0003", epoch=1_700_000_000),
    )  # fmt: skip
    return output


def test_the_files(built: Path) -> None:
    names = sorted(path.name for path in built.iterdir())
    assert names == ["install.efi", "kernel.efi", "provision.efi", "shim.efi"]


@pytest.mark.parametrize(
    ("name", "role", "other"),
    [
        ("shim.efi", "uefi-db", "uki-production"),
        ("kernel.efi", "uki-production", "uefi-db"),
        ("install.efi", "uki-production", "uefi-db"),
        ("provision.efi", "uki-production", "uefi-db"),
    ],
)
def test_each_is_signed_by_its_own_key_only(
    built: Path, anchored: bootkit.Anchored, tmp_path: Path, name: str, role: str, other: str
) -> None:
    status = {}
    for each in (role, other):
        (tmp_path / each).write_bytes(anchored.keyset.key(each).certificate_pem())
        result = run(
            ["sbverify", "--cert", tmp_path / each, built / name], timeout=PATIENCE, check=False
        )
        status[each] = result.status
    assert status[role] == 0
    assert status[other] != 0


def test_shim_holds_the_certificate_of_the_kernel_images(
    built: Path, anchored: bootkit.Anchored
) -> None:
    section = shim.vendor_cert((built / "shim.efi").read_bytes())
    assert anchored.keyset.key("uki-production").certificate_der() in section
    assert anchored.keyset.key("uefi-db").certificate_der() not in section


def test_the_kernel_goes_last_and_all_is_there(built: Path) -> None:
    image = (built / "kernel.efi").read_bytes()
    assert pefile.PE(data=image, fast_load=True).sections[-1].Name == b".linux\0\0"
    sections = uki.read_sections(image)
    assert {".osrel", ".cmdline", ".uname", ".pcrpkey", ".pcrsig", ".initrd", ".sbat"} <= set(
        sections
    )
    assert sections[".uname"] == KERNEL.encode()
    assert sections[".linux"] == b"MZ kernel" * 1000
    assert b"VERSION_ID=0003\n" in sections[".osrel"]
    assert b"VARIANT" not in sections[".osrel"]
    line = sections[".cmdline"].removesuffix(b"\0").decode()
    for word in ("lockdown=confidentiality", "panic=10"):
        assert word in line.split()
    assert "ipe" in line.split("lsm=")[1].split()[0].split(",")
    for word in ("init=", "rd.break", "debug", "ipe.enforce"):
        assert word not in line


def test_our_line_is_added_to_the_stubs_sbat(built: Path) -> None:
    lines = uki.read_sections((built / "kernel.efi").read_bytes())[".sbat"].decode().splitlines()
    assert lines[:-1] == SBAT.decode().splitlines()
    assert lines[-1] == "machineos,1,machineOS,machineos,1,docs/boot"


@pytest.mark.parametrize("name", ["kernel.efi", "install.efi"])
def test_the_policies_are_for_exactly_this_image(
    built: Path, anchored: bootkit.Anchored, name: str
) -> None:
    sections = uki.read_sections((built / name).read_bytes())
    policies = tpm_policy.parse_policies(sections[".pcrsig"])
    assert [policy.purpose for policy in policies] == ["first", "second"]
    measured = uki.measure({key: value for key, value in sections.items() if key in uki.MEASURED})
    behind = hashlib.sha256(measured + tpm_policy.FIRST_DOOR).digest()
    shim = anchored.keyset.key("uki-production").certificate_der()
    for policy, pcr11 in zip(policies, (measured, behind), strict=True):
        assert policy.pcrs == (7, 11, 12, 13, 14)
        assert policy.values[1] == pcr11
        assert policy.values[2:4] == (bytes(32), bytes(32))
        assert policy.values[4] == predict_pcr14(shim)
        assert policy.version == "0003"
    certificate = x509.load_der_x509_certificate(
        anchored.keyset.key("tpmpol-luks").certificate_der()
    )
    key = certificate.public_key()
    assert isinstance(key, RSAPublicKey)
    for policy, ref in zip(policies, (b"", tpm_policy.policy_ref("second")), strict=True):
        # raises when it does not verify
        key.verify(policy.signature, policy.policy + ref, padding.PKCS1v15(), SHA256())
    assert sections[".pcrpkey"] == bootkit.policy_public_key(anchored)


def test_provisioning_gets_no_policy(built: Path) -> None:
    """It puts the secrets into the TPM; it must not get them out."""
    sections = uki.read_sections((built / "provision.efi").read_bytes())
    assert tpm_policy.parse_policies(sections[".pcrsig"]) == ()


def test_no_two_images_have_the_same_measurement(built: Path) -> None:
    values = {
        uki.measure(uki.read_sections((built / name).read_bytes()))
        for name in ("kernel.efi", "install.efi", "provision.efi")
    }
    assert len(values) == 3


def test_the_anchors_in_the_initrd(built: Path, anchored: bootkit.Anchored, tmp_path: Path) -> None:
    archive = uki.read_sections((built / "kernel.efi").read_bytes())[".initrd"]
    base = b"initrd base".ljust(12, b"\0")
    assert archive.startswith(base)
    data = run(["zstd", "-d", "-c"], input=archive[len(base) :], timeout=PATIENCE).stdout
    run(["cpio", "-idm", "--quiet"], input=data, cwd=tmp_path, timeout=PATIENCE)
    folder = tmp_path / "usr/lib/machineos/boot"
    settings = msgspec.json.decode((folder / "settings.json").read_bytes(), type=Settings)
    assert (settings.mode, settings.policy_version, settings.kernel) == ("run", "0003", KERNEL)
    assert (settings.modules, settings.banner, settings.epoch) == (("loop.ko",), "", 1_700_000_000)
    line = uki.read_sections((built / "kernel.efi").read_bytes())[".cmdline"]
    assert settings.command_line.encode() + b"\0" == line
    keyset = anchored.keyset
    assert (folder / "manifest-ca.pem").read_bytes() == keyset.key("manifest-ca").certificate_pem()
    assert (folder / "sudi-ca.pem").read_bytes() == keyset.key("sudi-ca").certificate_pem()
    cross = x509.load_der_x509_certificate((folder / "manifest-ca-uki.der").read_bytes())
    issuer = x509.load_der_x509_certificate(keyset.key("uki-production").certificate_der())
    cross.verify_directly_issued_by(issuer)
    assert boot_policy_text(3, VOLUME) in (folder / "ipe-boot.p7s").read_bytes()
    assert closed_policy_text(3, VOLUME) in (folder / "ipe-closed.p7s").read_bytes()
    assert settings.modules_volume == VOLUME
    for path in folder.iterdir():
        assert b"PRIVATE KEY" not in path.read_bytes()


def test_a_banner_is_in_the_image(anchored: bootkit.Anchored, debian: Path, tmp_path: Path) -> None:
    base = initrdplan.Base(debian / "base.cpio.zst", KERNEL, (), (), {})
    (tmp_path / "work").mkdir()
    made = bootkit.build_images(
        anchored, debian, base, tmp_path / "out", modules=VOLUME, work=tmp_path / "work",
        modes=["run"],
        options=bootimage.Options(banner="DEBUG VARIANT"),
    )  # fmt: skip
    assert b'VARIANT="DEBUG VARIANT"' in uki.read_sections(made["run"].read_bytes())[".osrel"]


def test_the_tree_of_the_bootkits_first_layer(built: Path, tmp_path: Path) -> None:
    bootkit.boot_files_tree(built, tmp_path / "tree")
    files = sorted(
        str(path.relative_to(tmp_path / "tree"))
        for path in (tmp_path / "tree").rglob("*") if path.is_file()
    )  # fmt: skip
    assert files == ["bootkit/kernel.efi", "bootkit/shim.efi"]
    shutil.rmtree(tmp_path / "tree")


def test_the_policies_document_is_json(built: Path) -> None:
    text = uki.read_sections((built / "kernel.efi").read_bytes())[".pcrsig"]
    assert json.loads(text)
