"""Attacks on an installed machine: its TPM, its firmware's variables, its EFI partition.

Each is refused with one line that says why, or has no effect. Each works on its own copy.
"""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from fakes.swtpm import software_tpm
from machineos.build.os import appliance, bootimage, uki, workshop
from machineos.core.run import run
from machineos.trust.keys.efi import sign_efi
from machineos.trust.measure.secureboot import sha256_list, x509_list
from machineos.vm.model import FwCfg
from vm.appliance import Bench, make_keyset
from vm.attacks import (
    KERNELS,
    RUNS,
    SLOTS,
    Ends,
    Tries,
    Victim,
    authenticode,
    reason,
    rebuilt,
)
from vm.guest import Boot
from waiting import PATIENCE

pytestmark = [pytest.mark.tool("mcopy"), pytest.mark.tool("sfdisk")]
OWNER = "a0baa8a3-041d-48a8-bc87-c36d121b5e3d"
PCR7 = "PCR 7 is not a value this product signed"
PCR12 = "PCR 12 is not a value this product signed"
PCR14 = "PCR 14 is not a value this product signed: somebody enrolled a key"
# Which files, how each is made from what was there, and the words of the refusal.
Attack = tuple[tuple[str, str], Callable[[Victim, Bench, str, Path], Path], str]


# --- the TPM and the machine around it


@pytest.mark.attack(
    "firmware",
    "the TPM is switched off",
    "boot ends: there is no TPM",
)
def test_no_tpm(victim: Victim, ends: Ends) -> None:
    victim.change(tpm=False)
    assert "TPM" in reason(ends())


@pytest.mark.attack(
    "firmware",
    "another TPM in its place",
    "boot ends: not provisioned",
)
def test_a_new_tpm(victim: Victim, ends: Ends, bench: Bench) -> None:
    shutil.rmtree(bench.store.paths(victim.name).tpm)
    assert "not provisioned" in reason(ends())


@pytest.mark.attack(
    "firmware",
    "the TPM is cleared in the firmware's setup",
    "boot ends: it was cleared",
)
def test_a_cleared_tpm(
    victim: Victim, ends: Ends, bench: Bench, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What the firmware's setup does when somebody asks it to: TPM2_Clear as the platform."""
    state = bench.store.paths(victim.name).tpm
    folder = tmp_path_factory.mktemp("t")
    with software_tpm(folder, state) as chip:
        chip.wipe()
    assert "was cleared" in reason(ends())


@pytest.mark.attack(
    "firmware",
    "the disk and the TPM of one machine in the case of another",
    "boot ends: the identity is another machine's",
)
def test_another_serial_number(victim: Victim, ends: Ends, bench: Bench) -> None:
    config = bench.store.load(victim.name).config
    assert config.smbios is not None
    victim.change(smbios=msgspec.structs.replace(config.smbios, serial="somebody-else"))
    assert "this machine is 'somebody-else'" in reason(ends())


# --- shim, kernel image


def flipped(victim: Victim, bench: Bench, name: str, folder: Path) -> Path:
    path = victim.partition("esp").get(name, folder)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return path


def unsigned(victim: Victim, bench: Bench, name: str, folder: Path) -> Path:
    path = victim.partition("esp").get(name, folder)
    run(["sbattach", "--remove", path], timeout=PATIENCE)
    return path


def strangers(victim: Victim, bench: Bench, name: str, folder: Path) -> Path:
    """The same file, signed with the key of the same role of another keyset."""
    role = "uefi-db" if name in SLOTS else "uki-production"
    path = unsigned(victim, bench, name, folder)
    sign_efi(path, folder / "signed", make_keyset(bench, "stranger").key(role))
    return folder / "signed"


def kernel_instead(victim: Victim, bench: Bench, name: str, folder: Path) -> Path:
    """Our own kernel image in the place of shim: its key is none of the firmware's."""
    return victim.partition("esp").get(KERNELS[0], folder)


BY_FIRMWARE, BY_SHIM = "Access Denied", "Security Violation"


@pytest.mark.attack(
    "disk",
    "a bit of shim, or of the kernel image, is flipped on the EFI partition",
    "firmware or shim refuses it",
)
@pytest.mark.attack(
    "disk",
    "shim or kernel image without a signature, or with that of another keyset",
    "firmware or shim refuses it",
)
@pytest.mark.attack(
    "disk",
    "our own kernel image in the place of shim",
    "the firmware refuses it: it is not signed for that",
)
@pytest.mark.attack(
    "disk",
    "a script for the firmware's shell",
    "the shell does not start",
)
@pytest.mark.tool("sbattach")
@pytest.mark.parametrize(
    "attacks",
    [
        ((KERNELS, flipped, BY_SHIM), (SLOTS, flipped, BY_FIRMWARE)),
        ((KERNELS, unsigned, BY_SHIM), (KERNELS, strangers, BY_SHIM)),
        ((SLOTS, unsigned, BY_FIRMWARE), (SLOTS, strangers, BY_FIRMWARE)),
        ((SLOTS, kernel_instead, BY_FIRMWARE), (KERNELS, flipped, BY_SHIM)),
    ],
    ids=["flipped", "kernels", "shims", "kernel as shim"],
)
def test_boot_files_that_are_not_ours(
    victim: Victim, tries: Tries, bench: Bench, tmp_path: Path, attacks: tuple[Attack, Attack]
) -> None:
    """One attack in the place of the boot entry, one in that of the fallback: two in one boot. The
    firmware's shell, if there is one, would run the script of the attacker: it does not start."""
    esp = victim.partition("esp")
    for number, (names, make, _) in enumerate(attacks):
        folder = tmp_path / str(number)
        folder.mkdir()
        esp.put(make(victim, bench, names[number], folder), names[number])
    (tmp_path / "script").write_bytes(b"echo THE SCRIPT HAS RUN\r\n")
    esp.put(tmp_path / "script", "startup.nsh")
    first, second = (words for _, _, words in attacks)
    found = tries()
    assert found[:2] == [("machineos-a", first), ("UEFI Misc Device", second)]
    # The firmware of Debian 13 has no shell any more.
    assert found[2:] in ([], [("EFI Internal Shell", BY_SHIM)])


@pytest.mark.attack(
    "disk",
    "the signed image for provisioning in the place of the one that runs",
    "boot ends; the TPM is not touched",
)
def test_another_kernel_image_of_the_same_keyset(victim: Victim, ends: Ends, bench: Bench) -> None:
    """The provisioning image is signed too, but without its disk it does nothing."""
    esp = victim.partition("esp")
    provision = workshop.bootkit_folder(bench.keyset.root, workshop.DEBUG) / "provision.efi"
    esp.put(provision, KERNELS[0])
    assert "the disk trust-data with the device identity" in reason(ends())


# --- revocation


def next_generation(text: bytes) -> bytes:
    return text.replace(
        b"machineos,1,machineOS,machineos,1,", b"machineos,2,machineOS,machineos,2,"
    )


def of_an_old_grub(text: bytes) -> bytes:
    return next_generation(text) + b"grub,4,x,grub,4,x\n"


@pytest.mark.attack(
    "disk",
    "an older kernel image whose generation was revoked (SBAT)",
    "shim refuses it",
)
def test_a_revoked_generation(
    victim: Victim, ends: Ends, tries: Tries, tmp_path: Path, bench: Bench
) -> None:
    """The level that shim enforces is raised, as an update would. The installed image is of a
    revoked generation then; so is one that says that it has an old GRUB in it, which shim's own
    level revokes. The next generation passes shim, but it needs a policy for the new PCR 7."""
    level = tmp_path / "level"
    level.write_bytes(b"sbat,1,2026010100\nshim,4\ngrub,5\nmachineos,2\n")
    victim.variables("--set-sbat-level", level)
    esp = victim.partition("esp")
    rebuilt(bench, tmp_path / "grub.efi", sbat=of_an_old_grub)
    esp.put(tmp_path / "grub.efi", KERNELS[1])
    assert [words for _, words in tries()[:2]] == [BY_SHIM, BY_SHIM]
    rebuilt(bench, tmp_path / "next.efi", sbat=next_generation)
    esp.put(tmp_path / "next.efi", KERNELS[0])
    assert PCR7 in reason(ends())
    assert b"machineos,2" in bytes.fromhex(victim.variables()["SbatLevel"]["data"])


@pytest.mark.attack(
    "disk",
    "a kernel image that is on the deny list",
    "shim refuses it; no other gets a secret without a policy for that list",
)
@pytest.mark.proof
def test_a_kernel_image_on_the_deny_list(
    victim: Victim, ends: Ends, tmp_path: Path, bench: Bench
) -> None:
    """shim refuses it. Another one gets past shim and no secret: PCR 7 is another one, until its
    policy is signed for the deny list as it is now. The key is the old one all the time: it opens
    the configuration in the end."""
    esp = victim.partition("esp")
    old = authenticode(esp.get(KERNELS[0], tmp_path).read_bytes())
    dbx = victim.variables("--add-dbx-hash", OWNER, old.hex())["dbx"]
    assert old.hex() in dbx["data"]
    assert ends() == BY_SHIM
    rebuilt(bench, tmp_path / "next.efi")
    esp.put(tmp_path / "next.efi", KERNELS[0])
    assert PCR7 in reason(ends())
    rebuilt(bench, tmp_path / "signed.efi", dbx=bytes.fromhex(dbx["data"]))
    esp.put(tmp_path / "signed.efi", KERNELS[0])
    assert ends() == RUNS


# --- what comes from beside the image


@pytest.mark.attack(
    "disk",
    "add-ons, extensions and credentials beside the kernel image; a command line in the boot entry",
    "ignored, or PCR 12 or 13 keeps the TPM shut",
)
@pytest.mark.proof
def test_what_lies_beside_the_image(
    victim: Victim, ends: Ends, bench: Bench, tmp_path: Path
) -> None:
    """Under Secure Boot systemd-stub ignores the command line of the boot entry, and add-ons that
    nobody of ours signed. System extensions and credentials are measured. An add-on with our own
    signature is taken, and what it says is seen: so the others were well-made.
    """
    with_options(victim, "init=/bin/sh rd.break ipe.enforce=0", tmp_path / "entry.json")
    esp = victim.partition("esp")
    there, everywhere = "EFI/machineos-a/grubx64.efi.extra.d", "loader/addons"
    for folder in (there, "loader", everywhere):
        run(["mmd", "-i", esp.fat, f"::/{folder}"], timeout=PATIENCE)
    addon, signed = tmp_path / "addon", tmp_path / "signed"
    make_addon(bench, addon, b"ipe.enforce=0 init=/bin/sh\0")
    sign_efi(addon, signed, make_keyset(bench, "stranger").key("uki-production"))
    for folder in (there, everywhere):
        esp.put(addon, f"{folder}/unsigned.addon.efi")
        esp.put(signed, f"{folder}/strange.addon.efi")
    assert ends() == RUNS
    (tmp_path / "extension").write_bytes(b"squashfs" * 1000)
    esp.put(tmp_path / "extension", f"{there}/x.sysext.raw")
    assert "PCR 13 is not a value this product signed: a system extension" in reason(ends())
    run(["mdel", "-i", esp.fat, f"::/{there}/x.sysext.raw"], timeout=PATIENCE)
    (tmp_path / "credential").write_bytes(b"root")
    esp.put(tmp_path / "credential", f"{there}/x.cred")
    assert PCR12 in reason(ends())
    run(["mdel", "-i", esp.fat, f"::/{there}/x.cred"], timeout=PATIENCE)
    sign_efi(addon, signed, bench.keyset.key("uki-production"))
    esp.put(signed, f"{there}/ours.addon.efi")
    assert "the kernel command line is not the one that was signed" in reason(ends())


def with_options(victim: Victim, options: str, changed: Path) -> None:
    """Put a command line into the boot entry of the installed image."""
    ours = "machineos-a".encode("utf-16-le").hex()
    (entry,) = [
        one
        for name, one in victim.variables().items()
        if name.startswith("Boot0") and ours in one["data"]
    ]
    entry["data"] += options.encode("utf-16-le").hex() + "0000"
    changed.write_bytes(msgspec.json.encode({"version": 2, "variables": [entry]}))
    now = victim.variables("--set-json", changed)[entry["name"]]
    assert now["data"] == entry["data"]


def make_addon(bench: Bench, target: Path, command_line: bytes) -> None:
    """Make an add-on: a boot image without kernel. It is well-made: signed by us, it is taken."""
    stub = (appliance.boot_root(bench.shop()) / bootimage.STUB_PATH).read_bytes()
    sections = {".cmdline": command_line}
    target.write_bytes(uki.assemble(stub, sections, sbat=bootimage.sbat_text(stub)))


# For root, and no file of the attacker's is executed: Python is on the host.
PROGRAM = r"""/usr/bin/python3 -c 'open(\"/dev/kmsg\",\"w\").write(\"THE RULE HAS RUN\")'"""
RULE = f'SUBSYSTEM=="block", RUN+="{PROGRAM}"\n'


@pytest.mark.attack(
    "firmware",
    "systemd credentials in fw_cfg and SMBIOS strings: units, rules, a root password",
    "without effect",
)
def test_credentials_from_the_firmware(victim: Victim, boot: Boot, tmp_path: Path) -> None:
    """Who has the machine can set SMBIOS strings, and for a virtual machine QEMU's fw_cfg. systemd
    takes credentials from both if it is let: units, users, and files like this rule of udev's."""
    rule = base64.b64encode(RULE.encode()).decode()
    given = {
        "tmpfiles.extra": f"f~ /run/udev/rules.d/99-x.rules - - - - {rule}\n",
        "systemd.unit-dropin.-.mount": "[Unit]\nDescription=STRANGER\n",
    }
    items = []
    for name, text in given.items():
        (tmp_path / name).write_text(text)
        path = f"opt/io.systemd.credentials/{name}"
        items.append(FwCfg(path, file=str(tmp_path / name)))
    victim.change(fw_cfg=tuple(items))
    with boot(victim.name) as guest:
        guest.wake()
        guest.wait_until("systemctl is-active -q multi-user.target")
        taken = guest.sh(
            "ls /run/credentials/@system /run/udev/rules.d;"
            " systemctl show -P Description -- -.mount;"
            " udevadm trigger --settle -s block; dmesg | grep -o 'THE RULE HAS RUN'"
        ).output
        for trace in ("tmpfiles.extra", "99-x.rules", "STRANGER", "HAS RUN"):
            assert trace not in taken, taken


# --- Secure Boot


SHIM_LOCK = "605dab50-e046-4300-abb6-3dd810dd8b23"


def enrol(victim: Victim, name: str, data: bytes, changed: Path) -> None:
    """Put a list of shim's into the firmware's variables, as MokManager does."""
    one = {"name": name, "guid": SHIM_LOCK, "attr": 3, "data": data.hex()}
    changed.write_bytes(msgspec.json.encode({"version": 2, "variables": [one]}))
    assert victim.variables("--set-json", changed)[name]["data"] == data.hex()


@pytest.mark.attack(
    "firmware",
    "enrols a key of their own in shim (MOK), or a list of what shim refuses",
    "boot ends: PCR 14, and the kernel's keys are counted",
)
def test_what_the_owner_of_the_firmware_enrols_in_shim(
    victim: Victim, ends: Ends, tmp_path: Path
) -> None:
    """Somebody at the console, with Secure Boot off for one boot. shim tells the TPM in PCR 14
    alone. A hash to deny is in neither of the keyrings that are looked at, so it is the TPM that
    keeps its secrets; a CA is in the kernel's keyring, and the boot ends before the TPM is asked.
    """
    enrol(victim, "MokListX", sha256_list(uuid4(), [bytes(range(32))]), tmp_path / "denied")
    assert PCR14 in reason(ends())
    key, cert = tmp_path / "key.pem", tmp_path / "ca.der"
    run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30",
         "-subj", "/CN=foreign", "-addext", "keyUsage=critical,keyCertSign",
         "-keyout", key, "-outform", "DER", "-out", cert], timeout=PATIENCE)  # fmt: skip
    enrol(victim, "MokList", x509_list(uuid4(), cert.read_bytes()), tmp_path / "enrolled")
    words = reason(ends())
    assert "the kernel has 2 keys from the firmware in .machine" in words
    assert "'foreign: " in words


@pytest.mark.attack(
    "firmware",
    "Secure Boot is switched off",
    "the boot ends before the TPM is asked",
)
def test_secure_boot_off(victim: Victim, ends: Ends) -> None:
    """The kernel takes no key from the firmware then, which is told before the TPM is asked."""
    victim.variables("--delete", "PK")
    words = reason(ends())
    assert "the kernel has no key from the firmware in .machine" in words
    assert "Secure Boot is off" in words
